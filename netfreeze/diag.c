/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * TCP sockets of a namespace that no program holds, as sock_diag shows them (inode 0). Neither kind
 * can be carried, because there is no fd to read them by; both go away by themselves, mostly within
 * a round trip:
 *
 *   half-open   SYN_RECV, or in an accept queue: hold new SYNs (FILTER_SYN) while the program still
 *               runs, until there are none. tcp_pending() sees only the second half of them
 *   closing     closed by the program while the kernel still sends (or waits for) the rest: their
 * bytes are lost if the namespace goes, so wait for them too, as long as the deadline allows
 */
#include <errno.h>
#include <netinet/in.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define BIT(state)   (1u << (state))
#define DIAG_WAIT_MS 1000

/** tcp_unheld_open - a sock_diag socket of @netns for tcp_unheld(); an fd or a negative errno */
int tcp_unheld_open(int netns, struct err *e)
{
	return netns_socket(netns, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, e);
}

static int ask_kernel(int fd, uint8_t family, struct err *e)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} q = {
		.h = {.nlmsg_len = sizeof(q),
		      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		      .nlmsg_seq = 1},
		.r = {.sdiag_family = family,
		      .sdiag_protocol = IPPROTO_TCP,
		      .idiag_states = BIT(TCP_SYN_RECV) | BIT(TCP_ESTABLISHED) |
				      BIT(TCP_CLOSE_WAIT) | BIT(TCP_FIN_WAIT1) | BIT(TCP_CLOSING) |
				      BIT(TCP_LAST_ACK)},
	};
	struct sockaddr_nl nl = {.nl_family = AF_NETLINK};

	if (sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&nl, sizeof(nl)) < 0)
		return err_sys(e, "ask sock_diag");
	return 0;
}

static void count(const struct inet_diag_msg *m, struct tcp_unheld *n)
{
	if (m->idiag_inode)
		return;
	switch (m->idiag_state) {
	case TCP_SYN_RECV:
	case TCP_ESTABLISHED:
	case TCP_CLOSE_WAIT: n->half_open++; break;
	default: n->closing++; break;
	}
}

/* Over the sockets of @family. An AF_INET6 listener's connections are its own there. */
static int count_family(int fd, uint8_t family, struct tcp_unheld *n, struct err *e)
{
	uint64_t end = deadline_ms(DIAG_WAIT_MS);
	char buf[32768];
	int r;

	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		; /* of a call that failed half-way */
	r = ask_kernel(fd, family, e);
	while (r == 0) {
		const struct nlmsghdr *h;
		ssize_t len;
		int left;

		r = io_wait_readable(fd, end, e);
		if (r < 0)
			return err_wrap(e, "sock_diag");
		len = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (len < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (len < 0)
			return err_sys(e, "answer of sock_diag");
		left = (int)len;
		for (h = (void *)buf; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
			if (h->nlmsg_type == NLMSG_DONE) {
				return 0;
			}
			if (h->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *x = mnl_nlmsg_get_payload(h);

				if (x->error == -ENOENT && family == AF_INET6)
					return 0; /* a kernel without IPv6 */
				return err_num(e, x->error, "sock_diag");
			}
			if (mnl_nlmsg_get_payload_len(h) >= sizeof(struct inet_diag_msg))
				count(mnl_nlmsg_get_payload(h), n);
		}
	}
	return r;
}

/**
 * tcp_unheld - count the connections of a namespace that no program holds
 *
 * @fd from tcp_unheld_open(). 0 or a negative errno; *@out is untouched then. The kernel walks its
 * table of connections: ~50 us, more with thousands of them.
 */
int tcp_unheld(int fd, struct tcp_unheld *out, struct err *e)
{
	struct tcp_unheld n = {0};
	int r = count_family(fd, AF_INET, &n, e);

	if (r == 0)
		r = count_family(fd, AF_INET6, &n, e);
	if (r == 0)
		*out = n;
	return r;
}
