/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Names what no kind takes, so that a refusal says what is in the way and what to do about it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "pod/base/util.h"
#include "pod/kind/kinds.h"

static const struct {
	const char *link; /* the beginning of it */
	const char *words;
} anon[] = {
	{ "anon_inode:[io_uring]", "an io_uring: cannot be carried (run the program with its io_uring use turned off)" },
	{ "anon_inode:[perf_event]", "a perf event: cannot be carried (detach the profiler first)" },
	{ "anon_inode:[userfaultfd]", "a userfaultfd: cannot be carried" },
	{ "anon_inode:inotify", "an inotify instance: cannot be carried" }, /* by O_PATH */
	{ "anon_inode:[fanotify]", "a fanotify group: cannot be carried" },
	{ "anon_inode:bpf-prog", "a bpf program: cannot be carried" },
	{ "anon_inode:bpf-map", "a bpf map: cannot be carried" },
	{ "anon_inode:bpf_link", "a bpf link: cannot be carried" },
	{ "anon_inode:btf", "a btf object: cannot be carried" },
	{ "anon_inode:[pidfd]", "a pidfd: cannot be carried yet" },
	{ "pidfd:", "a pidfd: cannot be carried yet" },
	{ "anon_inode:[fscontext]", "a file system context: cannot be carried" },
	{ "anon_inode:seccomp notify", "a seccomp listener: cannot be carried" },
	{ "anon_inode:landlock-ruleset", "a landlock ruleset: cannot be carried" },
	{ "anon_inode:kvm-vm", "a virtual machine (kvm): cannot be carried" },
	{ "anon_inode:kvm-vcpu", "a virtual CPU (kvm): cannot be carried" },
	{ "anon_inode:dmabuf", "a dma buffer: cannot be carried" },
	{ "anon_inode:sync_file", "a fence of a device: cannot be carried" },
	{ "anon_inode:[vfio-device]", "a vfio device: cannot be carried" },
	{ "/dmabuf:", "a dma buffer: cannot be carried" },
	{ "anon_inode:[secretmem]", "a memfd_secret: cannot be carried" },
};

static const struct {
	int family;
	const char *name;
} families[] = {
	{ AF_UNIX, "unix" },	     { AF_INET, "IPv4" },   { AF_INET6, "IPv6" },
	{ AF_NETLINK, "netlink" },   { AF_PACKET, "packet" }, { AF_VSOCK, "vsock" },
	{ AF_ALG, "kernel crypto" }, { 44, "xdp" },	    { AF_BLUETOOTH, "bluetooth" },
	{ AF_CAN, "CAN" },	     { AF_TIPC, "tipc" },   { AF_KEY, "IPsec key" },
	{ 43, "smc" },		     { AF_RDS, "rds" },	    { 45, "mctp" },
};

static const struct {
	int type;
	const char *name;
} types[] = {
	{ SOCK_STREAM, "stream" },
	{ SOCK_DGRAM, "datagram" },
	{ SOCK_SEQPACKET, "seqpacket" },
	{ SOCK_RAW, "raw" },
	{ SOCK_RDM, "rdm" },
};

static const struct {
	int proto;
	const char *name;
} protos[] = {
	{ IPPROTO_TCP, "TCP" },	  { IPPROTO_UDP, "UDP" },     { 262, "MPTCP" },
	{ IPPROTO_SCTP, "SCTP" }, { IPPROTO_ICMP, "ICMP" },   { IPPROTO_ICMPV6, "ICMPv6" },
	{ IPPROTO_DCCP, "DCCP" }, { IPPROTO_UDPLITE, "UDP-Lite" },
};

static void name_socket(const struct probe *p, char *why, size_t len)
{
	int family = kind_sock_int(p->fd, SO_DOMAIN), type = kind_sock_int(p->fd, SO_TYPE);
	int proto = kind_sock_int(p->fd, SO_PROTOCOL);
	char fam[24], typ[24], pro[32] = "";
	const char *remedy = "";
	size_t i;

	snprintf(fam, sizeof(fam), "family %d", family);
	snprintf(typ, sizeof(typ), "type %d", type);
	if (proto && family != AF_NETLINK)
		snprintf(pro, sizeof(pro), ", protocol %d", proto);
	for (i = 0; i < ARRAY_SIZE(families); i++)
		if (families[i].family == family)
			snprintf(fam, sizeof(fam), "%s", families[i].name);
	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (types[i].type == type)
			snprintf(typ, sizeof(typ), "%s", types[i].name);
	if (family == AF_INET || family == AF_INET6)
		for (i = 0; i < ARRAY_SIZE(protos); i++)
			if (protos[i].proto == proto)
				snprintf(pro, sizeof(pro), " (%s)", protos[i].name);
	if (family == AF_INET6)
		remedy = " (let the program use IPv4)";
	snprintf(why, len, "a socket, %s %s%s: cannot be carried%s", fam, typ, pro,
		 remedy[0] ? remedy : " yet");
}

static const char *device_words(const struct probe *p)
{
	if (!strncmp(p->link, "/dev/infiniband/", 16))
		return " (RDMA; let the job use TCP)";
	if (!strncmp(p->link, "/dev/nvidia", 11) || !strncmp(p->link, "/dev/dri/", 9) ||
	    !strncmp(p->link, "/dev/kfd", 8))
		return " (a GPU)";
	if (!strcmp(p->link, "/dev/fuse"))
		return " (a file system in user space)";
	return "";
}

static void name_device(const struct probe *p, char *why, size_t len)
{
	snprintf(why, len, "%s device %u:%u '%.80s'%s: cannot be carried",
		 S_ISBLK(p->st.st_mode) ? "block" : "character", major(p->st.st_rdev),
		 minor(p->st.st_rdev), p->link, device_words(p));
}

int kind_refusal(const struct probe *p, char *why, size_t len)
{
	struct statfs fs;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(anon); i++) {
		if (!strncmp(p->link, anon[i].link, strlen(anon[i].link))) {
			snprintf(why, len, "%s", anon[i].words);
			return -EOPNOTSUPP;
		}
	}
	if (kind_is_o_path(p))
		snprintf(why, len, "an O_PATH descriptor of '%.80s': cannot be carried yet", p->link);
	else if (S_ISSOCK(p->st.st_mode))
		name_socket(p, why, len);
	else if (S_ISFIFO(p->st.st_mode))
		snprintf(why, len, "a pipe or FIFO, '%.100s': cannot be carried", p->link);
	else if (S_ISCHR(p->st.st_mode) || S_ISBLK(p->st.st_mode))
		name_device(p, why, len);
	else if (fstatfs(p->fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		snprintf(why, len, "a file of hugetlbfs, '%.80s': cannot be carried yet", p->link);
	else
		snprintf(why, len, "'%.120s': cannot be carried", p->link);
	return -EOPNOTSUPP;
}
