/* SPDX-License-Identifier: GPL-3.0-or-later */
/* See inet.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "netfreeze/inet.h"
#include "pod/base/util.h"

socklen_t inet_name_make(union inet_name *out, bool v6, const struct sockaddr_in *a,
			 const struct in6_addr *a6)
{
	memset(out, 0, sizeof(*out));
	if (!v6) {
		out->in = *a;
		return sizeof(out->in);
	}
	out->in6.sin6_family = AF_INET6;
	out->in6.sin6_port = a->sin_port;
	out->in6.sin6_addr = *a6;
	return sizeof(out->in6);
}

bool inet_name_read(const union inet_name *n, struct sockaddr_in *a, struct in6_addr *a6)
{
	if (n->sa.sa_family != AF_INET6) {
		*a = n->in;
		return false;
	}
	*a6 = n->in6.sin6_addr;
	*a = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = n->in6.sin6_port};
	if (IN6_IS_ADDR_V4MAPPED(a6))
		memcpy(&a->sin_addr, &a6->s6_addr[12], sizeof(a->sin_addr));
	else if (!IN6_IS_ADDR_UNSPECIFIED(a6))
		a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return true;
}

int inet_check_v6(int fd, const char *what, struct err *e)
{
	static const int headers[] = {IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS};
	union inet_name n[2] = {0};
	char text[INET6_ADDRSTRLEN] = "?", buf[256];
	socklen_t len = sizeof(n[0]);
	size_t i;

	if (getsockname(fd, &n[0].sa, &len) < 0)
		return err_sys(e, "getsockname");
	len = sizeof(n[1].in6);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &n[1], &len) < 0)
		memset(&n[1], 0, sizeof(n[1]));
	for (i = 0; i < 2; i++) {
		const struct in6_addr *a = &n[i].in6.sin6_addr;

		if (IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LOOPBACK(a) ||
		    IN6_IS_ADDR_V4MAPPED(a))
			continue;
		inet_ntop(AF_INET6, a, text, sizeof(text));
		return err_set(e, EOPNOTSUPP, "%s of IPv6, with address %s: cannot be carried",
			       what, text);
	}
	for (i = 0; i < ARRAY_SIZE(headers); i++) {
		len = sizeof(buf);
		if (getsockopt(fd, IPPROTO_IPV6, headers[i], buf, &len) == 0 && len > 0)
			return err_set(e, EOPNOTSUPP,
				       "%s with extension headers of IPv6: cannot be carried",
				       what);
	}
	return 0;
}

uint32_t inet_sum(const void *p, size_t len, uint32_t sum)
{
	const uint8_t *b = p;
	size_t i;

	for (i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)b[i] << 8 | b[i + 1];
	return i < len ? sum + ((uint32_t)b[i] << 8) : sum;
}

uint16_t inet_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}
