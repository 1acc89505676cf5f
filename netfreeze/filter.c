/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The filter that makes a pod's network stand still: the nftables table "inet podmigrate" in the
 * pod's namespace, with two base chains at priority -400 (before connection tracking, so that what
 * is dropped leaves no trace there), "in" at the prerouting hook and "out" at the output hook.
 *
 *   FILTER_OPEN    no rules
 *   FILTER_SYN     in: a TCP segment with SYN and without ACK is dropped
 *   FILTER_BLOCK   in: everything is dropped that comes from without; out: what the kernel sends by itself
 *   FILTER_MUTE    out: that is dropped. For the replay into restored sockets (tcp.c)
 *
 * and in every state lo passes: what a pod says to itself does not cross the wire; nor does its own copy
 * of a multicast or broadcast, which comes in by eth0 but has a route already, as nothing from without has. But for resets
 * without ACK in FILTER_BLOCK and FILTER_MUTE: they answer a segment (a delayed acknowledgement) of
 * a restored connection whose other end has not been made yet. The answer to a SYN has both.
 *
 * A state change is one transaction (nf_tables applies a batch whole or not at all): table and
 * chains if missing, rules of both chains flushed, the new rules. The three batches are built when
 * the filter is opened and hold for ever, so that in the freeze a change is one sendmsg() and one
 * recvmsg() on a socket that was opened beforehand in the pod's namespace. The requests carry fixed
 * sequence numbers; the last one asks for the acknowledgement, any error names its request.
 *
 * A dropped output packet makes the sender's ip_output() fail, and TCP then counts the segment as
 * not sent. So a connection under FILTER_BLOCK gains no "sent but lost" data; see tcp.c. With UDP, ICMP and
 * raw sockets the program would see the error: the agent wakes it, with the link attached, while the engine is
 * about to open the filter. None of these leaves a pod that stands still, so they may always leave. What the kernel
 * sends by itself: TCP, reports of multicast groups (IGMP; of IPv6, ICMPv6), all of ICMPv6.
 */
#include <errno.h>
#include <netinet/in.h> /* before linux/in.h, which then keeps out of its way */
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define TABLE      "podmigrate"
#define PRIORITY   (-400)
#define BATCH_MAX  4096
#define LO_IFINDEX 1    /* the kernel gives lo this index in every namespace */
#define SYN_MASK   0x12 /* SYN | ACK */
#define SYN_ONLY   0x02
#define RST_MASK   0x14 /* RST | ACK */
#define RST_ONLY   0x04

struct filter {
	int fd;
	struct {
		char buf[BATCH_MAX];
		size_t len;
		uint32_t last; /* sequence number of the request that asks for an answer */
	} batch[FILTER_MUTE + 1];
	struct {
		char buf[512];
		size_t len;
		uint32_t last;
	} clear;
};

/* ---- building batches */

struct builder {
	struct mnl_nlmsg_batch *b;
	uint32_t seq;
	uint32_t last;
	struct nlmsghdr *last_hdr;
	bool failed;
};

static void add_begin(struct builder *w)
{
	nftnl_batch_begin(mnl_nlmsg_batch_current(w->b), w->seq++);
	w->failed |= !mnl_nlmsg_batch_next(w->b);
}

static void add_end(struct builder *w)
{
	if (w->last_hdr)
		w->last_hdr->nlmsg_flags |= NLM_F_ACK;
	nftnl_batch_end(mnl_nlmsg_batch_current(w->b), w->seq++);
	w->failed |= !mnl_nlmsg_batch_next(w->b);
}

static struct nlmsghdr *add_request(struct builder *w, uint16_t type, uint16_t flags)
{
	w->last = w->seq;
	w->last_hdr = nftnl_nlmsg_build_hdr(mnl_nlmsg_batch_current(w->b), type, NFPROTO_INET,
					    flags, w->seq++);
	return w->last_hdr;
}

static void add_table(struct builder *w, uint16_t type, uint16_t flags)
{
	struct nftnl_table *t = nftnl_table_alloc();
	struct nlmsghdr *h;

	if (!t) {
		w->failed = true;
		return;
	}
	nftnl_table_set_u32(t, NFTNL_TABLE_FAMILY, NFPROTO_INET);
	nftnl_table_set_str(t, NFTNL_TABLE_NAME, TABLE);
	h = add_request(w, type, flags);
	nftnl_table_nlmsg_build_payload(h, t);
	nftnl_table_free(t);
	w->failed |= !mnl_nlmsg_batch_next(w->b);
}

static void add_chain(struct builder *w, const char *name, uint32_t hook)
{
	struct nftnl_chain *c = nftnl_chain_alloc();
	struct nlmsghdr *h;

	if (!c) {
		w->failed = true;
		return;
	}
	nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, TABLE);
	nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
	nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
	nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook);
	nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, PRIORITY);
	nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	h = add_request(w, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	nftnl_chain_nlmsg_build_payload(h, c);
	nftnl_chain_free(c);
	w->failed |= !mnl_nlmsg_batch_next(w->b);
}

static void rule_push(struct builder *w, struct nftnl_rule *r, struct nftnl_expr *x)
{
	if (x)
		nftnl_rule_add_expr(r, x);
	else
		w->failed = true;
}

static struct nftnl_expr *expr_cmp(uint32_t op, const void *data, uint32_t len)
{
	struct nftnl_expr *x = nftnl_expr_alloc("cmp");

	if (x) {
		nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
		nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, op);
		nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, len);
	}
	return x;
}

static struct nftnl_expr *expr_meta(uint32_t key)
{
	struct nftnl_expr *x = nftnl_expr_alloc("meta");

	if (x) {
		nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
		nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, NFT_REG_1);
	}
	return x;
}

/* "meta l4proto tcp, flags & @mask == @flags" */
static void push_flags_match(struct builder *w, struct nftnl_rule *r, uint8_t mask, uint8_t flags)
{
	static const uint8_t proto = 6, zero;
	struct nftnl_expr *x;

	rule_push(w, r, expr_meta(NFT_META_L4PROTO));
	rule_push(w, r, expr_cmp(NFT_CMP_EQ, &proto, 1));
	x = nftnl_expr_alloc("payload");
	if (x) {
		nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
		nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
		nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, 13);
		nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, 1);
	}
	rule_push(w, r, x);
	x = nftnl_expr_alloc("bitwise");
	if (x) {
		nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
		nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
		nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, 1);
		nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, &mask, 1);
		nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, &zero, 1);
	}
	rule_push(w, r, x);
	rule_push(w, r, expr_cmp(NFT_CMP_EQ, &flags, 1));
}

static struct nftnl_rule *rule_new(const char *chain)
{
	struct nftnl_rule *r = nftnl_rule_alloc();

	if (r) {
		nftnl_rule_set_u32(r, NFTNL_RULE_FAMILY, NFPROTO_INET);
		nftnl_rule_set_str(r, NFTNL_RULE_TABLE, TABLE);
		nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain);
	}
	return r;
}

static void add_flush(struct builder *w, const char *chain)
{
	struct nftnl_rule *r = rule_new(chain);

	if (!r) {
		w->failed = true;
		return;
	}
	nftnl_rule_nlmsg_build_payload(add_request(w, NFT_MSG_DELRULE, 0), r);
	nftnl_rule_free(r);
	w->failed |= !mnl_nlmsg_batch_next(w->b);
}

/* @r with its verdict goes to the end of its chain, and is freed. */
static void rule_end(struct builder *w, struct nftnl_rule *r, uint32_t verdict)
{
	struct nftnl_expr *x = nftnl_expr_alloc("immediate");

	if (x) {
		nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
		nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, verdict);
	}
	rule_push(w, r, x);
	nftnl_rule_nlmsg_build_payload(add_request(w, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND), r);
	nftnl_rule_free(r);
	w->failed |= !mnl_nlmsg_batch_next(w->b);
}

enum what { ALL, NEW_SYN, STRAY_RST, PROTOCOL };

/* Drops what goes through @chain on an interface (@key) that is not lo, if it is @what; STRAY_RST:
 * on lo; PROTOCOL: of @proto. */
static void add_drop(struct builder *w, const char *chain, uint32_t key, enum what what, uint8_t proto)
{
	static const uint32_t lo = LO_IFINDEX;
	struct nftnl_rule *r = rule_new(chain);

	if (!r) {
		w->failed = true;
		return;
	}
	rule_push(w, r, expr_meta(key));
	rule_push(w, r, expr_cmp(what == STRAY_RST ? NFT_CMP_EQ : NFT_CMP_NEQ, &lo, sizeof(lo)));
	if (what == NEW_SYN)
		push_flags_match(w, r, SYN_MASK, SYN_ONLY);
	if (what == STRAY_RST)
		push_flags_match(w, r, RST_MASK, RST_ONLY);
	if (what == PROTOCOL) {
		rule_push(w, r, expr_meta(NFT_META_L4PROTO));
		rule_push(w, r, expr_cmp(NFT_CMP_EQ, &proto, sizeof(proto)));
	}
	rule_end(w, r, NF_DROP);
}

/* Accepts what goes through @chain and has a route (@key: of which family), whatever follows. */
static void add_accept_routed(struct builder *w, const char *chain, uint32_t key)
{
	struct nftnl_rule *r = rule_new(chain);
	struct nftnl_expr *x = nftnl_expr_alloc("rt");

	if (!r || !x) {
		w->failed = true;
		if (r)
			nftnl_rule_free(r);
		if (x)
			nftnl_expr_free(x);
		return;
	}
	nftnl_expr_set_u32(x, NFTNL_EXPR_RT_KEY, key); /* without a route the rule ends here */
	nftnl_expr_set_u32(x, NFTNL_EXPR_RT_DREG, NFT_REG_1);
	rule_push(w, r, x);
	rule_end(w, r, NF_ACCEPT);
}

/* The batch that leads from any state, even "no table", to @state; -1: to "no table". */
static int build(int state, char *buf, size_t size, size_t *len, uint32_t *last, struct err *e)
{
	struct builder w = {.seq = 1};

	w.b = mnl_nlmsg_batch_start(buf, size);
	if (!w.b)
		return err_num(e, ENOMEM, "filter batch");
	add_begin(&w);
	add_table(&w, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	if (state < 0) {
		add_table(&w, NFT_MSG_DELTABLE, 0);
	} else {
		add_chain(&w, "in", NF_INET_PRE_ROUTING);
		add_chain(&w, "out", NF_INET_LOCAL_OUT);
		add_flush(&w, "in");
		add_flush(&w, "out");
		if (state == FILTER_SYN)
			add_drop(&w, "in", NFT_META_IIF, NEW_SYN, 0);
		if (state == FILTER_BLOCK) {
			add_accept_routed(&w, "in", NFT_RT_NEXTHOP4);
			add_accept_routed(&w, "in", NFT_RT_NEXTHOP6);
			add_drop(&w, "in", NFT_META_IIF, ALL, 0);
		}
		if (state == FILTER_BLOCK || state == FILTER_MUTE) {
			add_drop(&w, "out", NFT_META_OIF, PROTOCOL, IPPROTO_TCP);
			add_drop(&w, "out", NFT_META_OIF, PROTOCOL, IPPROTO_IGMP);
			add_drop(&w, "out", NFT_META_OIF, PROTOCOL, IPPROTO_ICMPV6);
			add_drop(&w, "out", NFT_META_OIF, STRAY_RST, 0);
		}
	}
	add_end(&w);
	*len = mnl_nlmsg_batch_size(w.b);
	*last = w.last;
	mnl_nlmsg_batch_stop(w.b);
	return w.failed ? err_num(e, ENOMEM, "filter batch") : 0;
}

/* ---- running them */

static int talk(int fd, const void *batch, size_t len, uint32_t last, struct err *e)
{
	struct sockaddr_nl nl = {.nl_family = AF_NETLINK};
	uint64_t end = deadline_ms(2000);
	char buf[8192];
	ssize_t n;
	int r;

	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		; /* a leftover of a call that failed half-way */
	n = sendto(fd, batch, len, 0, (struct sockaddr *)&nl, sizeof(nl));
	if (n < 0)
		return err_sys(e, "filter: send to nf_tables");
	for (;;) {
		const struct nlmsghdr *h;
		int left;

		r = io_wait_readable(fd, end, e);
		if (r < 0)
			return err_wrap(e, "filter");
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return err_sys(e, "filter: answer of nf_tables");
		left = (int)n;
		for (h = (void *)buf; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
			const struct nlmsgerr *ack = mnl_nlmsg_get_payload(h);

			if (h->nlmsg_type != NLMSG_ERROR)
				continue;
			if (ack->error)
				return err_num(e, ack->error, "filter: nf_tables request %u",
					       h->nlmsg_seq);
			if (h->nlmsg_seq == last)
				return 0;
		}
	}
}

/**
 * filter_open - a handle on the filter of @netns
 *
 * Opens the netlink socket and builds the batches, and changes nothing. Any handle on a namespace
 * may be used after any other: the state is the kernel's.
 */
int filter_open(int netns, struct filter **out, struct err *e)
{
	struct filter *f = calloc(1, sizeof(*f));
	int one = 1, state, r;

	if (!f)
		return err_num(e, ENOMEM, "filter");
	f->fd = netns_socket(netns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, e);
	r = f->fd < 0 ? err_wrap(e, "filter") : 0;
	for (state = FILTER_OPEN; r == 0 && state <= FILTER_MUTE; state++)
		r = build(state, f->batch[state].buf, BATCH_MAX, &f->batch[state].len,
			  &f->batch[state].last, e);
	if (r == 0)
		r = build(-1, f->clear.buf, sizeof(f->clear.buf), &f->clear.len, &f->clear.last, e);
	if (r < 0) {
		filter_free(f);
		return r;
	}
	setsockopt(f->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one)); /* short answers */
	*out = f;
	return 0;
}

/** filter_set - bring the namespace's filter into @state from whatever state it is in */
int filter_set(struct filter *f, enum filter_state state, struct err *e)
{
	return talk(f->fd, f->batch[state].buf, f->batch[state].len, f->batch[state].last, e);
}

/** filter_remove - the table is gone from the namespace; success if there was none */
int filter_remove(struct filter *f, struct err *e)
{
	return talk(f->fd, f->clear.buf, f->clear.len, f->clear.last, e);
}

/** filter_free - free the handle; the namespace's filter stays as it is */
void filter_free(struct filter *f)
{
	if (!f)
		return;
	close_fdp(&f->fd);
	free(f);
}

static int set_once(int netns, int state, struct err *e)
{
	struct filter *f;
	int r = filter_open(netns, &f, e);

	if (r < 0)
		return r;
	r = state < 0 ? filter_remove(f, e) : filter_set(f, (enum filter_state)state, e);
	filter_free(f);
	return r;
}

/** filter_prepare - table and chains without rules in @netns: costs next to nothing while it runs
 */
int filter_prepare(int netns, struct err *e)
{
	return set_once(netns, FILTER_OPEN, e);
}

/** filter_syn - drop new SYNs that arrive in @netns */
int filter_syn(int netns, struct err *e)
{
	return set_once(netns, FILTER_SYN, e);
}

/** filter_block - drop everything both ways in @netns but on lo, and but UDP on its way out */
int filter_block(int netns, struct err *e)
{
	return set_once(netns, FILTER_BLOCK, e);
}

/** filter_clear - no table in @netns; idempotent. The agents' way out when the engine is dead. */
int filter_clear(int netns, struct err *e)
{
	return set_once(netns, -1, e);
}
