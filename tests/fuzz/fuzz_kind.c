/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * libFuzzer: the messages inside of records, one by one: what each kind says of its objects, the pod's own words (PodSpec), and
 * the tree with what is checked of it before anything is made. The first byte chooses the message. Seeds: corpus_kind.
 */
#include <stdlib.h>
#include <string.h>

#include "control.pb-c.h"
#include "image.pb-c.h"
#include "pod/base/util.h"
#include "pod/image/memory.h"
#include "pod/image/stream.h"
#include "pod/restore.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const ProtobufCMessageDescriptor *const messages[] = {
	&pm__tree__descriptor,          &pm__pod_spec__descriptor,
	&pm__body_file__descriptor,     &pm__body_mem__descriptor,
	&pm__body_pipe__descriptor,     &pm__body_eventfd__descriptor,
	&pm__body_signalfd__descriptor, &pm__body_inotify__descriptor,
	&pm__body_timerfd__descriptor,  &pm__body_epoll__descriptor,
	&pm__body_unix__descriptor,     &pm__body_tcp__descriptor,
	&pm__body_udp__descriptor,      &pm__body_pty__descriptor,
	&pm__tmpfs__descriptor,         &pm__objects__descriptor,
	&pm__needs__descriptor,         &pm__image_head__descriptor,
	&pm__log_piece__descriptor,     &pm__cut_end__descriptor,
	&pm__body_fifo__descriptor,     &pm__body_msg_queue__descriptor,
	&pm__body_sem_set__descriptor,  &pm__body_mqueue__descriptor,
	&pm__body_mqueue_fd__descriptor, &pm__body_netlink__descriptor,
	&pm__body_raw__descriptor,        &pm__body_packet__descriptor,
};

static void check_tree(const Pm__Tree *t)
{
	Pm__PodSpec spec = PM__POD_SPEC__INIT;
	struct bounds any = {0};

	for (size_t i = 0; i < t->n_procs; i++)
		memory_check(t->procs[i], NULL);
	if (rcheck_tree(t, NULL) >= 0)
		rcheck_policy(&spec, &any, t, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	const ProtobufCMessageDescriptor *d;
	struct record rec = {.type = REC_TREE};
	ProtobufCMessage *m;

	if (!len)
		return 0;
	d = messages[bytes[0] % ARRAY_SIZE(messages)];
	rec.payload = malloc(len);
	rec.len = len - 1;
	memcpy(rec.payload, bytes + 1, len - 1);
	m = record_unpack(&rec, d, NULL);
	if (m && d == &pm__tree__descriptor)
		check_tree((const Pm__Tree *)m);
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
	record_done(&rec);
	return 0;
}
