/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * libFuzzer: a stream of records and page frames from an untrusted peer, as the target's engine reads it.
 * The input is fed twice: as it is, and with the digests of its records made right, so that the fuzzer
 * gets past them to what the messages say. Seeds: tests/fuzz/corpus_stream (made by the golden test).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image.pb-c.h"
#include "pod/base/io.h"
#include "pod/image/stream.h"
#include "pod/mem/mem.h"
#include "tests/fuzz/mend.h"

#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const ProtobufCMessageDescriptor *const schema[REC_MAX] = {
	[REC_GREETING] = &pm__greeting__descriptor, [REC_NEEDS] = &pm__needs__descriptor,
	[REC_MISSING] = &pm__missing__descriptor,   [REC_VERDICT] = &pm__verdict__descriptor,
	[REC_OBJECTS] = &pm__objects__descriptor,   [REC_TMPFS] = &pm__tmpfs__descriptor,
	[REC_TREE] = &pm__tree__descriptor,	    [REC_CUT_END] = &pm__cut_end__descriptor,
	[REC_CLOCK] = &pm__cut_end__descriptor,	    [REC_FINAL] = &pm__tree__descriptor,
	[REC_LOG] = &pm__log_piece__descriptor,
};

static int any_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data,
		   struct err *e)
{
	(void)arg, (void)id, (void)kind, (void)e;
	if (!len || addr + len < addr || (data && len > PAGE_FRAME_DATA_MAX))
		abort();
	return 0;
}

static void one(const struct record *rec)
{
	ProtobufCMessage *m;

	if (rec->type <= 0 || rec->type >= REC_MAX || rec->len > INPUT_MAX)
		abort();
	if (!schema[rec->type])
		return;
	m = record_unpack(rec, schema[rec->type], NULL);
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
}

static void feed(const uint8_t *bytes, size_t len)
{
	const struct page_sink sink = { .run = any_run };
	struct stream s = { .deadline = deadline_ms(2000) };
	struct record rec;
	int sv[2], size = 4 * INPUT_MAX, r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0 ||
	    setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0 ||
	    write(sv[0], bytes, len) != (ssize_t)len)
		abort();
	close(sv[0]);
	s.fd = sv[1];
	while (r >= 0) {
		r = stream_next_is_pages(&s, NULL);
		if (r == 1) {
			r = pages_recv(s.fd, &sink, NULL, s.deadline, NULL);
		} else if (r == 0) {
			r = stream_recv(&s, &rec, NULL);
			if (r >= 0) {
				one(&rec);
				record_done(&rec);
			}
		}
	}
	close(sv[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static uint8_t copy[INPUT_MAX];

	if (len == 0 || len > INPUT_MAX)
		return 0;
	feed(bytes, len);
	memcpy(copy, bytes, len);
	mend(copy, len);
	feed(copy, len);
	return 0;
}
