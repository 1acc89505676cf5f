/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Image files: whole or not there at all; whatever is cut off or changed is seen. */
#include "pod/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "pod/base/io.h"
#include "pod/mem/mem.h"
#include "tests/harness.h"

static const struct image_user nobody_special = { 0 };

static void temp_dir(char *path)
{
	strcpy(path, "/tmp/pmimage-XXXXXX");
	T_REQUIRE(mkdtemp(path) != NULL);
}

/* A head, a frame with two pages, a record: as an engine writes them. */
static void fill(struct image_file *f, uint64_t *size)
{
	struct stream s = { .fd = f->fd, .deadline = deadline_ms(5000), .file = true };
	char id[] = "p.7", pages[2 * PAGE] __attribute__((aligned(4096)));
	Pm__ImageHead head = PM__IMAGE_HEAD__INIT;
	Pm__CutEnd cut = PM__CUT_END__INIT;
	struct runs runs = { 0 };
	struct err e = { 0 };
	int mem = memfd_create("pages", MFD_CLOEXEC);

	memset(pages, 'x', sizeof(pages));
	T_REQUIRE(write(mem, pages, sizeof(pages)) == sizeof(pages));
	T_REQUIRE(runs_add(&runs, 0, sizeof(pages)) == 0);
	head.version = head.compat = IMAGE_VERSION;
	head.id = id;
	T_OK(stream_send_msg(&s, REC_HEAD, 0, &head.base, &e), &e);
	T_OK(pages_send_file(s.fd, mem, 5, &runs, NULL, &s.sent, s.deadline, &e), &e);
	cut.mono_ns = 11;
	T_OK(stream_send_msg(&s, REC_CUT_END, 0, &cut.base, &e), &e);
	*size = s.sent;
	runs_done(&runs);
	close(mem);
}

static void make(const char *path)
{
	struct image_file f;
	struct err e = { 0 };
	uint64_t size, digest;

	T_OK(image_create(&f, path, &nobody_special, false, &e), &e);
	fill(&f, &size);
	T_CHECK(access(path, F_OK) < 0);
	T_OK(image_seal(&f, &size, &digest, &e), &e);
	T_CHECK(access(path, F_OK) < 0);
	T_OK(image_publish(&f, &e), &e);
	image_done(&f);
}

static void test_there_and_back(void)
{
	char dir[32], path[64];
	struct err e = { 0 };
	struct image im;
	struct record rec;
	struct stat st;
	Pm__CutEnd *cut;

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/p.7" IMAGE_SUFFIX, dir);
	make(path);
	T_CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600);
	T_OK(image_open(&im, path, NULL, &e), &e);
	T_CHECK(!strcmp(im.head->id, "p.7"));
	T_CHECK_EQ(im.n, 3);
	T_CHECK_EQ(im.entry[1].type, IMAGE_FRAME);
	cut = (Pm__CutEnd *)image_message(&im, REC_CUT_END, &pm__cut_end__descriptor, &e);
	T_REQUIRE(cut);
	T_CHECK_EQ(cut->mono_ns, 11);
	pm__cut_end__free_unpacked(cut, NULL);
	T_CHECK_EQ(image_record(&im, REC_FINAL, &rec, &e), -ENOENT);
	T_OK(image_verify(&im, &e), &e);
	image_close(&im);
	unlink(path);
	T_CHECK(rmdir(dir) == 0); /* nothing else was made there */
}

static void test_no_half_image(void)
{
	char dir[32], path[64];
	struct image_file f;
	struct err e = { 0 };
	uint64_t size;

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/p.7" IMAGE_SUFFIX, dir);
	T_OK(image_create(&f, path, &nobody_special, false, &e), &e);
	fill(&f, &size);
	image_done(&f);
	T_CHECK(rmdir(dir) == 0);
	T_CHECK_EQ(image_create(&f, path, &nobody_special, false, &e), -ENOENT);
	T_CHECK_EQ(image_create(&f, "here" IMAGE_SUFFIX, &nobody_special, false, &e), -EINVAL);
}

static void test_replace(void)
{
	char dir[32], path[64];
	struct image_file f;
	struct err e = { 0 };
	uint64_t size, digest;
	struct image im;

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/a", dir);
	T_OK(io_replace_file(path, "old", 3, 0600, &e), &e);
	T_CHECK_EQ(image_create(&f, path, &nobody_special, false, &e), -EEXIST);
	T_OK(image_create(&f, path, &nobody_special, true, &e), &e);
	fill(&f, &size);
	T_OK(image_seal(&f, &size, &digest, &e), &e);
	T_OK(image_publish(&f, &e), &e);
	image_done(&f);
	T_OK(image_open(&im, path, NULL, &e), &e);
	T_CHECK_EQ(im.digest, digest);
	image_close(&im);
	unlink(path);
	T_CHECK(rmdir(dir) == 0);
}

/* 0 if these bytes pass for an image, whole. */
static int judge(const char *bytes, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC), r;
	struct err e = { 0 };
	struct image im;

	T_REQUIRE(write(fd, bytes, len) == (ssize_t)len);
	r = image_open_fd(&im, fd, &e);
	if (r == 0) {
		r = image_verify(&im, &e);
		image_close(&im);
	}
	T_CHECK_EQ(r < 0, e.code < 0);
	return r;
}

static void test_damage(void)
{
	char dir[32], path[64], *bytes;
	struct err e = { 0 };
	size_t len, i;

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/a", dir);
	make(path);
	T_OK(io_read_file(path, 1 << 20, &bytes, &len, &e), &e);
	T_CHECK_EQ(judge(bytes, len), 0);
	for (i = 0; i < len; i += i + 200 < len && i > 200 ? 61 : 1)
		T_CHECK_EQ(judge(bytes, i), -EBADMSG);
	/* in the pages every 61st byte will do */
	for (i = 0; i < len; i += i > 200 && i + 400 < len ? 61 : 1) {
		char was = bytes[i];

		bytes[i] ^= (char)(1 << (i % 8));
		if (judge(bytes, len) == 0)
			T_FAIL("byte %zu may be changed", i);
		bytes[i] = was;
	}
	T_CHECK_EQ(judge("", 0), -EBADMSG);
	free(bytes);
	unlink(path);
	rmdir(dir);
}

static const struct test_case cases[] = {
	{ "there_and_back", test_there_and_back },
	{ "no_half_image", test_no_half_image },
	{ "replace", test_replace },
	{ "damage", test_damage },
};
const struct test_suite image_file_suite = { "image_file", cases, ARRAY_SIZE(cases) };
