/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A pod's link: a veth pair whose inner end is eth0 with the pod's own MAC and address, and whose
 * outer end ("host end") is on the node's bridge while the pod runs there, and on no bridge before
 * the commit. netlink by libnl-route-3; nothing is spawned.
 *
 * Why the host end stays off the bridge until the commit: an inet filter does not stop ARP, so a
 * pod that is being built on the target would answer for the address that the source still holds.
 * Why IPv6 is off on eth0: duplicate address detection and router solicitations of a pod that has
 * just moved would be traffic that nobody asked for (IPv6 is not carried yet).
 * Why the announcement is a broadcast from the pod's own MAC: it is the frame that makes every
 * bridge on the way learn the new port, and the ARP payload refreshes neighbours.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/route.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define RUNNING_MS 3000
#ifndef IFF_LOWER_UP
#define IFF_LOWER_UP (1 << 16) /* <linux/if.h>, which does not go with <net/if.h> */
#endif

static void nl_free(struct nl_sock **s)
{
	if (*s)
		nl_socket_free(*s);
}
#define autonl __attribute__((cleanup(nl_free)))

static void link_put(struct rtnl_link **l)
{
	if (*l)
		rtnl_link_put(*l);
}
#define autolink __attribute__((cleanup(link_put)))

/* libnl's codes to errno, for those that callers look at */
static int nl_err(struct err *e, int code, const char *what, const char *name)
{
	int num = EIO;

	switch (-code) {
	case NLE_EXIST: num = EEXIST; break;
	case NLE_OBJ_NOTFOUND: num = ENOENT; break;
	case NLE_NODEV: num = ENODEV; break;
	case NLE_PERM: num = EPERM; break;
	case NLE_NOACCESS: num = EACCES; break;
	case NLE_NOMEM: num = ENOMEM; break;
	case NLE_INVAL: num = EINVAL; break;
	case NLE_BUSY: num = EBUSY; break;
	case NLE_OPNOTSUPP: num = EOPNOTSUPP; break;
	case NLE_RANGE: num = ERANGE; break;
	default: break;
	}
	return err_set(e, num, "%s '%s': %s", what, name, nl_geterror(code));
}

static int nl_open(struct nl_sock **out, struct err *e)
{
	struct nl_sock *s = nl_socket_alloc();
	int r;

	if (!s)
		return err_num(e, ENOMEM, "netlink socket");
	r = nl_connect(s, NETLINK_ROUTE);
	if (r < 0) {
		nl_socket_free(s);
		return nl_err(e, r, "netlink socket", "route");
	}
	*out = s;
	return 0;
}

/* One attribute change of the link @name: index by name, then RTM_SETLINK. */
static int link_change(struct nl_sock *s, const char *name, struct rtnl_link *change,
		       const char *what, struct err *e)
{
	autolink struct rtnl_link *orig = rtnl_link_alloc();
	unsigned idx = if_nametoindex(name);
	int r;

	if (!idx)
		return err_sys(e, "%s '%s'", what, name);
	if (!orig)
		return err_num(e, ENOMEM, "%s '%s'", what, name);
	rtnl_link_set_ifindex(orig, (int)idx);
	r = rtnl_link_change(s, orig, change, 0);
	return r < 0 ? nl_err(e, r, what, name) : 0;
}

static int set_up(struct nl_sock *s, const char *name, struct err *e)
{
	autolink struct rtnl_link *c = rtnl_link_alloc();

	if (!c)
		return err_num(e, ENOMEM, "set up '%s'", name);
	rtnl_link_set_flags(c, IFF_UP);
	return link_change(s, name, c, "set up", e);
}

/* A link that has a carrier drops what it is given until the kernel's link watch has run: a veth has no queue before, and
 * a bridge no port. Asking for the link's state makes it run, from 6.8 on; before, it takes up to 1 s. */
static int await_running(struct nl_sock *s, const char *name, struct err *e)
{
	uint64_t end = deadline_ms(RUNNING_MS);
	struct timespec nap = {0, 1000000};
	unsigned flags;

	for (;;) {
		struct rtnl_link *l;
		int r = rtnl_link_get_kernel(s, 0, name, &l);

		if (r < 0)
			return nl_err(e, r, "state of link", name);
		flags = rtnl_link_get_flags(l);
		rtnl_link_put(l);
		if ((flags & IFF_RUNNING) || !(flags & IFF_LOWER_UP))
			return 0;
		if (deadline_past(end))
			return err_set(e, ETIMEDOUT, "link '%s' has a carrier, but does not run", name);
		nanosleep(&nap, NULL);
	}
}

/* /proc/sys/net shows the namespace of the task that looks, so a thread in the pod's needs no
 * mount. */
static int ipv6_off(struct nl_sock *s, const char *name, struct err *e)
{
	char path[96];
	autolink struct rtnl_link *c = NULL;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s", name);
	if (access(path, F_OK) < 0)
		return 0; /* no IPv6 in this kernel, or no /proc here */
	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	if (io_write_file(path, "1", NULL) == 0)
		return 0;
	/* read-only /proc/sys: at least no link-local address and so no DAD and no solicitation */
	c = rtnl_link_alloc();
	if (!c)
		return err_num(e, ENOMEM, "IPv6 of '%s'", name);
	rtnl_link_inet6_set_addr_gen_mode(c, rtnl_link_inet6_str2addrgenmode("none"));
	return link_change(s, name, c, "IPv6 addresses off", e);
}

static int add_address(struct nl_sock *s, const char *name, uint32_t ip, unsigned prefix,
		       struct err *e)
{
	struct rtnl_addr *a = rtnl_addr_alloc();
	struct nl_addr *local = nl_addr_build(AF_INET, &ip, sizeof(ip));
	uint32_t bc = ip | htonl(prefix >= 32 ? 0 : 0xffffffffu >> prefix);
	struct nl_addr *bcast = nl_addr_build(AF_INET, &bc, sizeof(bc));
	int r = -NLE_NOMEM;

	if (a && local && bcast) {
		nl_addr_set_prefixlen(local, (int)prefix);
		rtnl_addr_set_ifindex(a, (int)if_nametoindex(name));
		rtnl_addr_set_local(a, local);
		if (prefix < 31)
			rtnl_addr_set_broadcast(a, bcast);
		r = rtnl_addr_add(s, a, 0);
	}
	nl_addr_put(local);
	nl_addr_put(bcast);
	if (a)
		rtnl_addr_put(a);
	return r < 0 ? nl_err(e, r, "address of", name) : 0;
}

static int add_default_route(struct nl_sock *s, const char *name, uint32_t gateway, struct err *e)
{
	uint32_t zero = 0;
	struct rtnl_route *rt = rtnl_route_alloc();
	struct rtnl_nexthop *nh = rtnl_route_nh_alloc();
	struct nl_addr *dst = nl_addr_build(AF_INET, &zero, sizeof(zero));
	struct nl_addr *gw = nl_addr_build(AF_INET, &gateway, sizeof(gateway));
	int r = -NLE_NOMEM;

	if (rt && nh && dst && gw) {
		nl_addr_set_prefixlen(dst, 0);
		rtnl_route_set_family(rt, AF_INET);
		rtnl_route_set_dst(rt, dst);
		rtnl_route_nh_set_ifindex(nh, (int)if_nametoindex(name));
		rtnl_route_nh_set_gateway(nh, gw);
		rtnl_route_add_nexthop(rt, nh);
		nh = NULL; /* the route owns it now */
		r = rtnl_route_add(s, rt, 0);
	}
	if (nh)
		rtnl_route_nh_free(nh);
	if (rt)
		rtnl_route_put(rt);
	nl_addr_put(dst);
	nl_addr_put(gw);
	return r < 0 ? nl_err(e, r, "default route on", name) : 0;
}

static int lo_up(void *arg, struct err *e)
{
	autonl struct nl_sock *s = NULL;
	int r = nl_open(&s, e);

	(void)arg;
	return r < 0 ? r : set_up(s, "lo", e);
}

/** link_lo_up - bring the loopback of @netns up; idempotent */
int link_lo_up(int netns, struct err *e)
{
	return netns_run(netns, lo_up, NULL, e);
}

struct inner {
	uint32_t ip, gateway;
	unsigned prefix;
};

/*
 * A pod that has just moved speaks on all its connections at once, before its first ARP answer:
 * what waits for that is bounded to 208 KiB by default, and what does not fit is dropped, for each
 * a retransmission timer.
 */
static void patient_neighbours(const char *name)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/neigh/%s/unres_qlen_bytes", name);
	io_write_file(path, "16777216", NULL); /* read-only /proc/sys: then it stays small */
}

static int setup_inner(void *arg, struct err *e)
{
	const struct inner *in = arg;
	autonl struct nl_sock *s = NULL;
	int r;

	r = nl_open(&s, e);
	if (r < 0)
		return r;
	r = set_up(s, "lo", e);
	if (r < 0)
		return r;
	r = ipv6_off(s, "eth0", e);
	if (r < 0)
		return r;
	patient_neighbours("eth0");
	r = add_address(s, "eth0", in->ip, in->prefix, e);
	if (r < 0)
		return r;
	r = set_up(s, "eth0", e);
	if (r < 0)
		return r;
	return in->gateway ? add_default_route(s, "eth0", in->gateway, e) : 0;
}

/**
 * link_make_veth - make a pod's link
 *
 * @host is left in the caller's namespace, up to no bridge and down; eth0 in @netns is up with
 * @mac,
 * @ip/@prefix and a default route by @gateway unless that is 0; lo is up. The addresses are in
 * network byte order. Everything or nothing; -EEXIST if @host exists.
 */
int link_make_veth(int netns, const char *host, const uint8_t mac[6], uint32_t ip, unsigned prefix,
		   uint32_t gateway, struct err *e)
{
	struct inner in = {ip, gateway, prefix};
	autonl struct nl_sock *s = NULL;
	autolink struct rtnl_link *veth = NULL;
	struct rtnl_link *peer;
	struct nl_addr *ll;
	int r;

	if (netns < 0)
		return err_set(e, EINVAL, "a pod's link needs the pod's network namespace");
	if (strlen(host) >= IFNAMSIZ || prefix > 32)
		return err_set(e, EINVAL, "link '%s': name or prefix out of range", host);
	r = nl_open(&s, e);
	if (r < 0)
		return r;
	veth = rtnl_link_veth_alloc();
	ll = nl_addr_build(AF_LLC, mac, 6);
	if (!veth || !ll) {
		nl_addr_put(ll);
		return err_num(e, ENOMEM, "link '%s'", host);
	}
	rtnl_link_set_name(veth, host);
	peer = rtnl_link_veth_get_peer(veth);
	rtnl_link_set_name(peer, "eth0");
	rtnl_link_set_addr(peer, ll);
	rtnl_link_set_ns_fd(peer, netns);
	r = rtnl_link_add(s, veth, NLM_F_CREATE | NLM_F_EXCL);
	rtnl_link_put(peer);
	nl_addr_put(ll);
	if (r < 0)
		return nl_err(e, r, "make link", host);
	r = netns_run(netns, setup_inner, &in, e);
	if (r < 0)
		link_delete(host, NULL);
	return r;
}

/** link_attach - put @host on @bridge and up; if there is a carrier frames pass when it returns */
int link_attach(const char *host, const char *bridge, struct err *e)
{
	autonl struct nl_sock *s = NULL;
	autolink struct rtnl_link *c = rtnl_link_alloc();
	unsigned br = if_nametoindex(bridge);
	int r;

	if (!br)
		return err_sys(e, "bridge '%s'", bridge);
	if (!c)
		return err_num(e, ENOMEM, "attach '%s'", host);
	r = nl_open(&s, e);
	if (r < 0)
		return r;
	ipv6_off(s, host, NULL); /* the node's end needs none either; not worth a failure */
	rtnl_link_set_master(c, (int)br);
	rtnl_link_set_flags(c, IFF_UP);
	r = link_change(s, host, c, "attach", e);
	return r < 0 ? r : await_running(s, host, e);
}

/** link_detach - take @host off its bridge; it stays up or down as it was */
int link_detach(const char *host, struct err *e)
{
	autonl struct nl_sock *s = NULL;
	autolink struct rtnl_link *c = rtnl_link_alloc();
	int r;

	if (!c)
		return err_num(e, ENOMEM, "detach '%s'", host);
	r = nl_open(&s, e);
	if (r < 0)
		return r;
	rtnl_link_set_master(c, 0);
	return link_change(s, host, c, "detach", e);
}

/** link_up - set @host up without a bridge (frames can be replayed into the pod, none get out) */
int link_up(const char *host, struct err *e)
{
	autonl struct nl_sock *s = NULL;
	int r = nl_open(&s, e);

	if (r < 0)
		return r;
	ipv6_off(s, host, NULL);
	return set_up(s, host, e);
}

/** link_exists - 1 if there is a link @name in the caller's namespace, else 0; or negative errno */
int link_exists(const char *name, struct err *e)
{
	if (if_nametoindex(name))
		return 1;
	return errno == ENODEV ? 0 : err_sys(e, "link '%s'", name);
}

/** link_delete - delete @host and with it its peer; success if there is none. Takes ~20 ms. */
int link_delete(const char *host, struct err *e)
{
	autonl struct nl_sock *s = NULL;
	autolink struct rtnl_link *l = rtnl_link_alloc();
	unsigned idx = if_nametoindex(host);
	int r;

	if (!idx)
		return errno == ENODEV ? 0 : err_sys(e, "link '%s'", host);
	if (!l)
		return err_num(e, ENOMEM, "delete '%s'", host);
	r = nl_open(&s, e);
	if (r < 0)
		return r;
	rtnl_link_set_ifindex(l, (int)idx);
	r = rtnl_link_delete(s, l);
	if (r == -NLE_NODEV || r == -NLE_OBJ_NOTFOUND)
		return 0;
	return r < 0 ? nl_err(e, r, "delete link", host) : 0;
}

/* ---- ARP */

struct arp_frame {
	struct ether_header eth;
	uint16_t hrd, pro;
	uint8_t hln, pln;
	uint16_t op;
	uint8_t sha[6], spa[4], tha[6], tpa[4];
} __attribute__((packed));

static void arp_fill(struct arp_frame *f, uint16_t op, const uint8_t mac[6], uint32_t spa,
		     uint32_t tpa)
{
	memset(f, 0, sizeof(*f));
	memset(f->eth.ether_dhost, 0xff, 6);
	memcpy(f->eth.ether_shost, mac, 6);
	f->eth.ether_type = htons(ETHERTYPE_ARP);
	f->hrd = htons(ARPHRD_ETHER);
	f->pro = htons(ETHERTYPE_IP);
	f->hln = 6;
	f->pln = 4;
	f->op = htons(op);
	memcpy(f->sha, mac, 6);
	memcpy(f->spa, &spa, 4);
	memcpy(f->tpa, &tpa, 4);
	if (op == ARPOP_REPLY)
		memset(f->tha, 0xff, 6);
}

static int packet_socket(const char *ifname, uint16_t proto, struct err *e)
{
	struct sockaddr_ll sll = {.sll_family = AF_PACKET, .sll_protocol = htons(proto)};
	autoclose int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(e, "packet socket on '%s'", ifname);
	sll.sll_ifindex = (int)if_nametoindex(ifname);
	if (!sll.sll_ifindex)
		return err_sys(e, "link '%s'", ifname);
	if (bind(fd, (struct sockaddr *)&sll, sizeof(sll)) < 0)
		return err_sys(e, "bind a packet socket to '%s'", ifname);
	return take_fd(&fd);
}

static int open_announcer(void *arg, struct err *e)
{
	(void)arg;
	return packet_socket("eth0", 0, e);
}

/**
 * link_announcer - a socket for link_announce_by(), bound to eth0 of @netns
 *
 * To be opened before the freeze and closed after it: close(2) of a packet socket waits for an RCU
 * grace period (measured: 10-15 ms).
 */
int link_announcer(int netns, struct err *e)
{
	return netns_run(netns, open_announcer, NULL, e);
}

/** link_announce_by - as link_announce(), from a socket of link_announcer(): microseconds */
int link_announce_by(int fd, const uint8_t mac[6], uint32_t ip, int count, struct err *e)
{
	struct arp_frame f;
	int i;

	for (i = 0; i < 2 * count; i++) {
		arp_fill(&f, i % 2 ? ARPOP_REPLY : ARPOP_REQUEST, mac, ip, ip);
		if (send(fd, &f, sizeof(f), 0) < 0)
			return err_sys(e, "announce on eth0");
	}
	return 0;
}

static int open_running(void *arg, struct err *e)
{
	autonl struct nl_sock *s = NULL;
	int r = nl_open(&s, e);

	if (r == 0)
		r = await_running(s, "eth0", e);
	return r < 0 ? r : open_announcer(arg, e);
}

/**
 * link_announce - gratuitous ARP request and reply, @count times, as the pod itself
 *
 * From eth0 of @netns, so it passes the host end and the bridge learns the port from its source
 * address. @ip in network byte order. Waits until eth0 passes frames, if it has just come up. Takes
 * 10-15 ms (see link_announcer()), the frames leave at once.
 */
int link_announce(int netns, const uint8_t mac[6], uint32_t ip, int count, struct err *e)
{
	autoclose int fd = netns_run(netns, open_running, NULL, e);

	return fd < 0 ? fd : link_announce_by(fd, mac, ip, count, e);
}

/* The node's own addresses do not answer a probe that the node sends. */
static int is_own_address(uint32_t ip, struct err *e)
{
	struct ifaddrs *all, *a;
	int found = 0;

	if (getifaddrs(&all) < 0)
		return err_sys(e, "list addresses");
	for (a = all; a && !found; a = a->ifa_next)
		if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET) {
			struct sockaddr_in in;

			memcpy(&in, a->ifa_addr, sizeof(in));
			found = in.sin_addr.s_addr == ip;
		}
	freeifaddrs(all);
	return found;
}

/**
 * link_address_busy - does somebody on the segment of @bridge answer for @ip?
 *
 * An ARP probe (sender address 0: it changes nobody's table), sent twice within @ms milliseconds.
 * Returns 1, 0 or a negative errno.
 */
int link_address_busy(const char *bridge, uint32_t ip, int ms, struct err *e)
{
	return link_address_taken(bridge, ip, NULL, ms, e);
}

/**
 * link_address_taken - does somebody other than @mac answer for @ip?
 *
 * For a pod that is about to move: it answers itself, from its old place. @mac NULL: anybody.
 */
int link_address_taken(const char *bridge, uint32_t ip, const uint8_t *mac, int ms, struct err *e)
{
	uint64_t end = deadline_look_ms((uint64_t)ms), again = deadline_look_ms((uint64_t)ms / 2);
	autoclose int fd = -1;
	struct arp_frame f, in;
	struct ifreq ifr = {0};
	int r, sent = 0;

	r = is_own_address(ip, e);
	if (r)
		return r;
	fd = packet_socket(bridge, ETH_P_ARP, e);
	if (fd < 0)
		return fd;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", bridge);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		return err_sys(e, "address of '%s'", bridge);
	arp_fill(&f, ARPOP_REQUEST, (const uint8_t *)ifr.ifr_hwaddr.sa_data, 0, ip);
	for (;;) {
		if (sent == 0 || (sent == 1 && now_ns() >= again)) {
			if (send(fd, &f, sizeof(f), 0) < 0)
				return err_sys(e, "ARP probe on '%s'", bridge);
			sent++;
		}
		r = io_wait_readable(fd, sent == 1 ? again : end, e);
		if (r == -ETIMEDOUT && sent == 1)
			continue;
		if (r == -ETIMEDOUT)
			return 0;
		if (r < 0)
			return r;
		if (recv(fd, &in, sizeof(in), MSG_DONTWAIT) < (ssize_t)sizeof(in))
			continue;
		if (in.op == htons(ARPOP_REPLY) && !memcmp(in.spa, &ip, 4) &&
		    (!mac || memcmp(in.sha, mac, 6)))
			return 1;
		if (now_ns() >= end)
			return 0;
	}
}
