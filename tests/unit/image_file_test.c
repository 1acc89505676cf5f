/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Image files: whole or not there at all; whatever is cut off or changed is seen. */
#include "pod/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "control.pb-c.h"
#include "pod/base/io.h"
#include "pod/mem/mem.h"
#include "pod/mem/pack.h"
#include "tests/harness.h"

static const struct image_user nobody_special = { 0 };

static void temp_dir(char *path)
{
	snprintf(path, 32, "%s/i", t_dir());
	T_REQUIRE(mkdir(path, 0700) == 0);
}

static uint64_t made = 100; /* when the next image is, and of what pod */
static uint64_t born = 1;
static char own_id[64] = "p.7";
static struct image *builds_on;
static bool compress, of_cut;
static uint32_t version = IMAGE_VERSION;

/* A head, a frame with two pages, a record: as an engine writes them. */
static void fill(struct image_file *f, uint64_t *size)
{
	struct stream s = { .fd = f->fd, .deadline = deadline_ms(60000), .file = true };
	char parent[80], pages[2 * PAGE] __attribute__((aligned(4096)));
	Pm__ImageHead head = PM__IMAGE_HEAD__INIT;
	Pm__PodSpec spec = PM__POD_SPEC__INIT;
	uint8_t packed[64];
	Pm__CutEnd cut = PM__CUT_END__INIT;
	struct page_pack pack = { .mode = PACK_LZ4 };
	struct page_known known = { 0 };
	struct runs runs = { 0 };
	struct err e = { 0 };
	int mem = memfd_create("pages", MFD_CLOEXEC);

	memset(pages, 'x', sizeof(pages));
	known.pack = &pack;
	spec.created_ns = born;
	head.spec.data = packed;
	head.spec.len = pm__pod_spec__pack(&spec, packed);
	head.created_ns = made++;
	if (builds_on) {
		snprintf(parent, sizeof(parent), "%s" IMAGE_SUFFIX, builds_on->head->id);
		head.parent = parent;
		head.parent_digest = builds_on->digest;
	}
	T_REQUIRE(write(mem, pages, sizeof(pages)) == sizeof(pages));
	T_REQUIRE(runs_add(&runs, 0, sizeof(pages)) == 0);
	head.version = version;
	head.compat = version;
	head.id = own_id;
	if (of_cut)
		head.cut = own_id;
	T_OK(stream_send_msg(&s, REC_HEAD, 0, &head.base, &e), &e);
	T_OK(pages_send_file(s.fd, mem, 5, &runs, compress ? &known : NULL, &s.sent, s.deadline, &e), &e);
	pack_done(&pack);
	cut.mono_ns = 11;
	T_OK(stream_send_msg(&s, REC_CUT_END, 0, &cut.base, &e), &e);
	*size = s.sent;
	runs_done(&runs);
	close(mem);
}

/* The digests of the pages that fill() wrote; @lie: of others. */
static void add_hashes(struct image_file *f, uint64_t *size, size_t n, bool lie)
{
	char page[PAGE];
	struct page_digest p[2];
	struct err e = { 0 };

	memset(page, lie ? 'y' : 'x', sizeof(page));
	p[0] = p[1] = page_digest(page);
	T_OK(image_hashes(f, size, p, n, &e), &e);
}

static void make(const char *path)
{
	struct image_file f;
	struct err e = { 0 };
	uint64_t size, digest;

	T_OK(image_create(&f, path, &nobody_special, false, &e), &e);
	fill(&f, &size);
	add_hashes(&f, &size, 2, false);
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
	T_CHECK_EQ(im.n, 4);
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

/* What the version before wrote is read; what the next may write is not, if it says so. */
static void test_versions(void)
{
	char dir[32], path[64];
	struct image_chain c;
	struct err e = { 0 };

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/a", dir);
	for (version = 1; version <= IMAGE_VERSION + 1; version++) {
		make(path);
		T_CHECK_EQ(chain_open(&c, path, NULL, &e), version > IMAGE_VERSION ? -EOPNOTSUPP : 0);
		if (version <= IMAGE_VERSION) {
			T_OK(image_verify(&c.im[0], &e), &e);
			chain_close(&c);
		}
		unlink(path);
	}
	version = IMAGE_VERSION;
	rmdir(dir);
}

/* The same with compressed frames; each page is found in the middle of one. */
static void test_compressed(void)
{
	char dir[32], path[64], *bytes, page[PAGE];
	struct image_chain c;
	struct err e = { 0 };
	uint64_t packed;
	size_t len, i;

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/a", dir);
	compress = true;
	make(path);
	compress = false;
	T_OK(chain_open(&c, path, NULL, &e), &e);
	T_CHECK_EQ(c.im[0].entry[1].type, IMAGE_FRAME_LZ4);
	T_CHECK_EQ(c.im[0].npages, 2);
	T_CHECK(image_stored(&c.im[0], &packed) < 200 && packed == 2 * PAGE);
	T_OK(image_verify(&c.im[0], &e), &e);
	for (i = 2; i-- > 0;) {
		T_OK(chain_read(&c, i, 1, page, &e), &e);
		T_CHECK(page[0] == 'x' && page[PAGE - 1] == 'x');
	}
	chain_close(&c);
	T_OK(io_read_file(path, 1 << 20, &bytes, &len, &e), &e);
	for (i = 0; i < len; i++) {
		T_CHECK_EQ(judge(bytes, i), -EBADMSG);
		bytes[i] ^= (char)(1 << (i % 8));
		if (judge(bytes, len) == 0)
			T_FAIL("byte %zu may be changed", i);
		bytes[i] ^= (char)(1 << (i % 8));
	}
	free(bytes);
	unlink(path);
	rmdir(dir);
}

/* What it says of its pages must be so: else who builds on it refers to other pages than it means. */
static void test_hashes(void)
{
	char dir[32], path[64];
	struct err e = { 0 };

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/a", dir);
	for (int i = 0; i < 3; i++) {
		struct image_file f;
		uint64_t size, digest;
		struct image im;

		T_OK(image_create(&f, path, &nobody_special, true, &e), &e);
		fill(&f, &size);
		add_hashes(&f, &size, i == 1 ? 1 : 2, i == 2);
		T_OK(image_seal(&f, &size, &digest, &e), &e);
		T_OK(image_publish(&f, &e), &e);
		image_done(&f);
		T_OK(image_open(&im, path, NULL, &e), &e);
		T_CHECK_EQ(image_verify(&im, &e), i ? -EBADMSG : 0);
		image_close(&im);
	}
	unlink(path);
	rmdir(dir);
}

/* A frame that refers to pages of which the image and those below it have fewer. */
static void test_refers_too_far(void)
{
	char dir[32], path[64], pages[PAGE] __attribute__((aligned(4096)));
	struct image_chain c;
	struct err e = { 0 };

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/a", dir);
	for (uint64_t at = 1; at < 3; at++) {
		struct page_frame h = { .magic = PAGE_FRAME_MAGIC, .nruns = 2, .id = 5 };
		struct page_run runs[2] = { { 0, 1, RUN_SAME }, { at * PAGE, 1, RUN_SAME_AT } };
		struct image_file f;
		uint64_t size, digest;

		T_OK(image_create(&f, path, &nobody_special, true, &e), &e);
		fill(&f, &size);
		h.digest = page_frame_digest(&h, &(struct iovec){ runs, sizeof(runs) }, 1);
		T_REQUIRE(write(f.fd, &h, sizeof(h)) == sizeof(h) && write(f.fd, runs, sizeof(runs)) == sizeof(runs));
		size += sizeof(h) + sizeof(runs);
		add_hashes(&f, &size, 2, false);
		T_OK(image_seal(&f, &size, &digest, &e), &e);
		T_OK(image_publish(&f, &e), &e);
		image_done(&f);
		T_OK(chain_open(&c, path, NULL, &e), &e);
		T_CHECK_EQ(image_verify(&c.im[0], &e), at == 1 ? 0 : -EBADMSG);
		T_CHECK_EQ(chain_read(&c, at, 1, pages, &e), at == 1 ? 0 : -EBADMSG);
		chain_close(&c);
	}
	unlink(path);
	rmdir(dir);
}

static void test_retract(void)
{
	char dir[32], path[64];
	struct err e = { 0 };
	struct image_file f;
	uint64_t size, digest;

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/p.7" IMAGE_SUFFIX, dir);
	for (int i = 0; i < 2; i++) { /* the second time it replaces one, which cannot be had back */
		T_OK(image_create(&f, path, &nobody_special, true, &e), &e);
		fill(&f, &size);
		T_OK(image_seal(&f, &size, &digest, &e), &e);
		T_OK(image_publish(&f, &e), &e);
		image_retract(&f);
		image_done(&f);
		T_CHECK_EQ(access(path, F_OK) == 0, i);
		if (!i)
			make(path);
	}
	unlink(path);
	/* a name that was taken in the meantime */
	T_OK(image_create(&f, path, &nobody_special, false, &e), &e);
	fill(&f, &size);
	T_OK(image_seal(&f, &size, &digest, &e), &e);
	make(path);
	T_CHECK_EQ(image_publish(&f, &e), -EEXIST);
	image_retract(&f);
	image_done(&f);
	T_CHECK(access(path, F_OK) == 0);
	unlink(path);
	T_CHECK(rmdir(dir) == 0);
}

/* ---- the store */

static char store[32];

static const char *in_store(const char *id)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s" IMAGE_SUFFIX, store, id);
	return path;
}

static bool there(const char *id)
{
	return access(in_store(id), F_OK) == 0;
}

/* An image of the pod @of; it builds on @parent, if that is not NULL. */
static void put(const char *id, uint64_t of, const char *parent)
{
	struct err e = { 0 };
	struct image im;

	if (parent)
		T_OK(image_open(&im, in_store(parent), NULL, &e), &e);
	builds_on = parent ? &im : NULL;
	born = of;
	snprintf(own_id, sizeof(own_id), "%s", id);
	make(in_store(id));
	builds_on = NULL;
	snprintf(own_id, sizeof(own_id), "p.7");
	if (parent)
		image_close(&im);
}

static void clear_store(void)
{
	static const char *const ids[] = { "p.1", "p.2", "p.3", "p.4", "p.9", "q.1", "q.2" };

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		unlink(in_store(ids[i]));
	T_CHECK(rmdir(store) == 0);
}

static void test_prune_by_time(void)
{
	const uint64_t of = 1;
	struct store_scope what = { "p", &of, NULL };
	uint64_t when;
	char path[128];
	struct err e = { 0 };

	temp_dir(store);
	put("p.9", 1, NULL);
	put("p.4", 1, NULL);
	put("q.1", 1, NULL);
	put("p.2", 1, "p.4"); /* the newest: numbers have begun again */
	T_CHECK_EQ(store_newest(store, "p", 1, path, sizeof(path), &when, &e), 1);
	T_CHECK(!strcmp(path, in_store("p.2")) && when == made - 1);
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(there("p.2") && there("p.4") && there("q.1") && !there("p.9"));
	put("p.3", 1, NULL);
	what.fresh = "p.2" IMAGE_SUFFIX;
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(there("p.2") && there("p.4") && there("p.3"));
	what.fresh = NULL;
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(!there("p.2") && !there("p.4") && there("p.3"));
	clear_store();
}

static void test_prune_by_identity(void)
{
	const uint64_t second = 2;
	struct store_scope what = { "p", &second, NULL };
	uint64_t when;
	char path[128];
	struct err e = { 0 };

	temp_dir(store);
	put("p.1", 1, NULL);
	put("p.2", 1, NULL);
	put("p.3", 2, NULL);
	put("p.4", 2, NULL);
	T_CHECK_EQ(store_newest(store, "p", 1, path, sizeof(path), &when, &e), 1);
	T_CHECK(!strcmp(path, in_store("p.2")));
	T_CHECK_EQ(store_newest(store, "p", 3, path, sizeof(path), &when, &e), 0);
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(there("p.1") && there("p.2") && !there("p.3") && there("p.4"));
	what.born = NULL; /* by hand: of each */
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(!there("p.1") && there("p.2") && there("p.4"));
	clear_store();
}

static void count_bad(void *arg, const char *pod, const struct err *e)
{
	T_CHECK(!strcmp(pod, "p") && e->code < 0);
	++*(int *)arg;
}

static void test_prune_unreadable(void)
{
	struct store_scope what = { NULL, NULL, NULL };
	int bad = 0;
	struct store_talk talk = { .arg = &bad, .bad = count_bad };
	struct err e = { 0 };

	temp_dir(store);
	put("p.1", 1, NULL);
	put("p.2", 1, "p.1");
	put("p.3", 1, NULL);
	put("q.1", 1, NULL);
	put("q.2", 1, NULL);
	T_REQUIRE(truncate(in_store("p.2"), 100) == 0);
	T_OK(store_prune(store, &what, 1, &talk, &e), &e);
	T_CHECK_EQ(bad, 1);
	T_CHECK(there("p.1") && there("p.2") && there("p.3") && !there("q.1") && there("q.2"));
	T_CHECK_EQ(store_remove(store, "p.1", &e), -EBUSY);
	T_CHECK(there("p.1"));
	T_OK(store_remove(store, "p.2", &e), &e);
	T_OK(store_remove(store, "p.1", &e), &e);
	T_CHECK_EQ(store_remove(store, "p.1", &e), -ENOENT);
	clear_store();
}

/* A checkpoint that is under way builds on p.2. */
static void test_prune_held(void)
{
	struct store_scope what = { NULL, NULL, NULL };
	struct err e = { 0 };
	struct image_chain c;

	temp_dir(store);
	put("p.1", 1, NULL);
	put("p.2", 1, "p.1");
	put("p.3", 1, NULL);
	put("p.4", 1, NULL);
	T_OK(chain_open(&c, in_store("p.2"), NULL, &e), &e);
	T_OK(chain_hold(&c, &e), &e);
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(there("p.1") && there("p.2") && !there("p.3") && there("p.4"));
	T_CHECK_EQ(store_remove(store, "p.2", &e), -EBUSY);
	T_CHECK(there("p.2"));
	chain_close(&c);
	T_OK(chain_open(&c, in_store("p.2"), NULL, &e), &e);
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(!there("p.1") && !there("p.2") && there("p.4"));
	T_CHECK_EQ(chain_hold(&c, &e), -EBUSY); /* too late */
	chain_close(&c);
	clear_store();
}

/* A pinned image and what it builds on stay, whatever is pruned or removed. */
static void test_pins(void)
{
	struct store_scope what = { .pod = "p" };
	struct err e = { 0 };

	temp_dir(store);
	put("p.1", 1, NULL);
	put("p.2", 1, "p.1");
	put("p.3", 1, NULL);
	put("p.4", 1, NULL);
	T_OK(store_pin(store, "p.2", true, &e), &e);
	T_OK(store_pin(store, "p.2", true, &e), &e);
	T_CHECK_EQ(store_pin(store, "p.9", true, &e), -ENOENT);
	T_CHECK_EQ(store_pin(store, "../p.2", true, &e), -ENOENT);
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(there("p.1") && there("p.2") && !there("p.3") && there("p.4"));
	T_CHECK_EQ(store_remove(store, "p.2", &e), -EBUSY);
	T_CHECK(there("p.2"));
	T_OK(store_pin(store, "p.2", false, &e), &e);
	T_OK(store_pin(store, "p.2", false, &e), &e);
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(!there("p.1") && !there("p.2") && there("p.4"));
	clear_store();
}

/* The newest of a job's cut stays, with what it builds on, as long as any stays. */
static void test_prune_cut(void)
{
	struct store_scope what = { .pod = "p" };
	struct err e = { 0 };

	temp_dir(store);
	put("p.1", 1, NULL);
	of_cut = true;
	put("p.2", 1, NULL);
	put("p.3", 1, "p.1");
	of_cut = false;
	put("p.4", 1, NULL);
	put("p.9", 1, NULL);
	T_OK(store_prune(store, &what, 1, NULL, &e), &e);
	T_CHECK(there("p.1") && !there("p.2") && there("p.3") && !there("p.4") && there("p.9"));
	T_OK(store_prune(store, &what, 0, NULL, &e), &e);
	T_CHECK(!there("p.1") && !there("p.3") && !there("p.9"));
	clear_store();
}

/* The pin is there with the name, and goes when that is taken back. */
static void test_pinned_from_birth(void)
{
	char dir[32], path[64], pin[80];
	struct image_file f;
	struct err e = { 0 };
	uint64_t size, digest;

	temp_dir(dir);
	snprintf(path, sizeof(path), "%s/p.7" IMAGE_SUFFIX, dir);
	snprintf(pin, sizeof(pin), "%s" PIN_SUFFIX, path);
	T_OK(image_create(&f, path, &nobody_special, false, &e), &e);
	f.pin = true;
	fill(&f, &size);
	T_OK(image_seal(&f, &size, &digest, &e), &e);
	T_CHECK(access(pin, F_OK) < 0);
	T_OK(image_publish(&f, &e), &e);
	T_CHECK(access(path, F_OK) == 0 && access(pin, F_OK) == 0);
	image_retract(&f);
	image_done(&f);
	T_CHECK(rmdir(dir) == 0);
}

static const struct test_case cases[] = {
	{ "there_and_back", test_there_and_back },
	{ "no_half_image", test_no_half_image },
	{ "replace", test_replace },
	{ "damage", test_damage },
	{ "versions", test_versions },
	{ "compressed", test_compressed },
	{ "hashes", test_hashes },
	{ "refers_too_far", test_refers_too_far },
	{ "retract", test_retract },
	{ "prune_by_time", test_prune_by_time },
	{ "prune_by_identity", test_prune_by_identity },
	{ "prune_unreadable", test_prune_unreadable },
	{ "prune_held", test_prune_held },
	{ "prune_cut", test_prune_cut },
	{ "pins", test_pins },
	{ "pinned_from_birth", test_pinned_from_birth },
};
const struct test_suite image_file_suite = { "image_file", cases, ARRAY_SIZE(cases) };
