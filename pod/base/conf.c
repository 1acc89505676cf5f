/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/conf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "pod/base/util.h"

enum where { IN_CONF, IN_NODE, IN_POOL, IN_PREFIX };

static const struct key {
	const char *section, *name, *preset;
	enum where where;
	size_t offset;
} keys[] = {
#define KEY(s, n, field, preset) { s, n, preset, IN_CONF, offsetof(struct conf, field) }
	KEY("client", "coordinator", client_coordinator, "/run/podmigrate/coord.sock"),
	KEY("coordinator", "socket", coord_socket, "/run/podmigrate/coord.sock"),
	KEY("coordinator", "state_dir", coord_state_dir, "/var/lib/podmigrate"),
	KEY("coordinator", "gateway", coord_gateway, ""),
	{ "coordinator", "pool", "10.77.128.0/17", IN_POOL, 0 },
	{ "coordinator", "prefix", "16", IN_PREFIX, 0 },
	{ "node", "socket", NULL, IN_NODE, offsetof(struct conf_node, socket) },
	{ "node", "address", NULL, IN_NODE, offsetof(struct conf_node, address) },
	KEY("agent", "name", agent_name, ""),
	KEY("agent", "socket", agent_socket, "/run/podmigrate/agent.sock"),
	KEY("agent", "state_dir", agent_state_dir, "/var/lib/podmigrate"),
	KEY("agent", "bridge", agent_bridge, ""),
	KEY("agent", "address", agent_address, ""),
	KEY("agent", "users", agent_users, "root"),
	KEY("agent", "cgroup", agent_cgroup, "podmigrate"),
	KEY("images", "dir", images_dir, "/var/lib/podmigrate/images"),
#undef KEY
};

struct parse {
	struct conf *conf;
	struct err err; /* what was wrong with the line; code 0: nothing */
};

static char **slot(void *base, size_t offset)
{
	return (char **)(void *)((char *)base + offset);
}

static int set_string(char **at, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int parse_number(const char *text, unsigned max, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || n > max)
		return -EINVAL;
	*out = (unsigned)n;
	return 0;
}

static int parse_pool(struct conf *c, const char *value)
{
	char text[64], *slash;
	struct in_addr a;
	unsigned bits;
	uint32_t mask;

	snprintf(text, sizeof(text), "%s", value);
	slash = strchr(text, '/');
	if (!slash)
		return -EINVAL;
	*slash = '\0';
	if (inet_pton(AF_INET, text, &a) != 1 || parse_number(slash + 1, 30, &bits) < 0 || bits < 8)
		return -EINVAL;
	mask = ~(uint32_t)0 << (32 - bits);
	c->pool_first = (ntohl(a.s_addr) & mask) + 1;
	c->pool_last = (ntohl(a.s_addr) | ~mask) - 1;
	return 0;
}

static struct conf_node *node_get(struct conf *c, const char *name)
{
	struct conf_node *n;

	for (size_t i = 0; i < c->nnodes; i++)
		if (strcmp(c->nodes[i].name, name) == 0)
			return &c->nodes[i];
	n = reallocarray(c->nodes, c->nnodes + 1, sizeof(*n));
	if (!n)
		return NULL;
	c->nodes = n;
	n += c->nnodes;
	memset(n, 0, sizeof(*n));
	if (set_string(&n->name, name) < 0 || set_string(&n->socket, "") < 0 ||
	    set_string(&n->address, "") < 0)
		return NULL;
	c->nnodes++;
	return n;
}

static int set_key(struct conf *c, const struct key *k, const char *node, const char *value)
{
	struct conf_node *n;

	switch (k->where) {
	case IN_CONF:
		return set_string(slot(c, k->offset), value);
	case IN_NODE:
		n = node_get(c, node);
		return n ? set_string(slot(n, k->offset), value) : -ENOMEM;
	case IN_POOL:
		return parse_pool(c, value);
	case IN_PREFIX:
		return parse_number(value, 30, &c->prefix);
	}
	return -EINVAL;
}

/* inih's callback: 1 = fine, 0 = remember this line as the first wrong one */
static int on_line(void *user, const char *section, const char *name, const char *value)
{
	struct parse *p = user;
	const char *node = "";
	char kind[32];

	if (p->err.code)
		return 0;
	snprintf(kind, sizeof(kind), "%s", section);
	if (strncmp(section, "node ", 5) == 0) {
		node = section + 5 + strspn(section + 5, " ");
		kind[4] = '\0';
	}
	if (strcmp(kind, "node") == 0 && !*node) {
		err_set(&p->err, EINVAL, "section [node] lacks the node's name");
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, kind) != 0 || strcmp(keys[i].name, name) != 0)
			continue;
		if (set_key(p->conf, &keys[i], node, value) == 0)
			return 1;
		err_set(&p->err, EINVAL, "[%s] %s: '%s' is not a valid value", section, name,
			value);
		return 0;
	}
	err_set(&p->err, EINVAL, "unknown key '%s' in section [%s]", name, section);
	return 0;
}

int conf_load(const char *path, struct conf *out, struct err *e)
{
	struct conf c = { 0 };
	struct parse p = { &c, { 0 } };
	const char *env = getenv("PODMIGRATE_CONF");
	bool must = path || env;
	int r;

	if (!path)
		path = env ? env : CONF_PATH;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (!keys[i].preset)
			continue;
		r = set_key(&c, &keys[i], "", keys[i].preset);
		if (r < 0) {
			conf_done(&c);
			return err_num(e, r, "configuration");
		}
	}
	r = ini_parse(path, on_line, &p);
	if (r == -1 && !must)
		r = 0;
	if (r) {
		conf_done(&c);
		if (r < 0)
			return err_set(e, ENOENT, "%s: cannot be read", path);
		return err_set(e, EINVAL, "%s:%d: %s", path, r,
			       p.err.code ? p.err.msg : "not a section, a key or a comment");
	}
	*out = c;
	return 0;
}

void conf_done(struct conf *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].where == IN_CONF)
			free(*slot(c, keys[i].offset));
	for (size_t i = 0; i < c->nnodes; i++) {
		free(c->nodes[i].name);
		free(c->nodes[i].socket);
		free(c->nodes[i].address);
	}
	free(c->nodes);
	memset(c, 0, sizeof(*c));
}
