/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Names of sockets of both families, and checksums: what TCP and UDP share; nobody else includes it. */
#ifndef NETFREEZE_INET_H
#define NETFREEZE_INET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "pod/base/err.h"

union inet_name {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/** The name {@a, or with @v6 @a6 and the port of @a} as bind(2) and connect(2) want it; its length.
 */
socklen_t inet_name_make(union inet_name *out, bool v6, const struct sockaddr_in *a,
			 const struct in6_addr *a6);
/** Takes over what getsockname(2) has said; true if it is of IPv6: then @a has the port, and the
 * IPv4 half of a mapped address, of ::1 lo's. */
bool inet_name_read(const union inet_name *n, struct sockaddr_in *a, struct in6_addr *a6);

/** May the AF_INET6 socket @fd (@what: "a TCP socket") be in a pod? Addresses that a pod can have,
 * and no sticky extension headers. 0 or -EOPNOTSUPP with the reason. */
int inet_check_v6(int fd, const char *what, struct err *e);

/** Internet checksum: the sum so far, which ends with an odd length; and its end. */
uint32_t inet_sum(const void *p, size_t len, uint32_t sum);
uint16_t inet_fold(uint32_t sum);

#endif
