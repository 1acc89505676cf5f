/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl checkpoint, restore, image: pods in files.
 *
 * An image is named by its path or, in the store, by its id: POD.NUMBER, in the directory of its user. Images are looked
 * at here with the caller's own rights; what may be made of one the coordinator decides.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libsmartcols/libsmartcols.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "coordinator/cmd/cut.h"
#include "coordinator/cmd/image.h"
#include "coordinator/cmd/operation.h"
#include "coordinator/cmd/pipe.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/image/image.h"
#include "pod/mem/mem.h"

enum { OPT_TERM = 256, OPT_FULL, OPT_KEEP, OPT_TIMEOUT, OPT_DRY_RUN, OPT_FORCE, OPT_JSON, OPT_NOHEADINGS, OPT_PIN,
       OPT_COMPRESS };

static int usage_or_help(struct ctx *c, int o)
{
	return o == 'h' ? EXIT_OK : usage_code(c);
}

/* ---- checkpoint */

static int checkpoint_result(struct operation *m, const Pm__MigrateRep *r)
{
	char total[32], frozen[32], sent[32], ns[32];

	operation_close_line(m);
	if (m->pipe) {
		int code = pipe_send_image(m->c, r->image, m->ends);

		if (code)
			return code;
	} else {
		printf("%s\n", r->image);
		fflush(stdout);
	}
	if (!r->sent) { /* its engine is dead, the image is there */
		fprintf(stderr, "%s: checkpoint in %s\n", r->pod, human_ns(total, sizeof(total), r->total_ns));
		return EXIT_OK;
	}
	fprintf(stderr, "%s: checkpoint in %s, frozen %s, %u round%s, %s written\n", r->pod,
		human_ns(total, sizeof(total), r->total_ns), human_ns(frozen, sizeof(frozen), r->frozen_ns), r->rounds,
		r->rounds == 1 ? "" : "s", operation_size(sent, sizeof(sent), r->sent));
	for (size_t i = 0; r->pods && i < r->n_notes; i++) /* of its pods */
		fprintf(stderr, "  %s\n", clean(r->notes[i]));
	for (size_t i = 0; m->times && i < r->n_phases; i++)
		fprintf(stderr, "  %-20s %12s\n", r->phases[i]->name, human_ns(ns, sizeof(ns), r->phases[i]->ns));
	return EXIT_OK;
}

/* The agent opens it, in another directory than ours. A directory gets an image of its own name. */
static int whole_path(struct ctx *c, const char *given, char *out, size_t len)
{
	char cwd[PATH_MAX];
	struct stat st;
	bool dir;

	if (!getcwd(cwd, sizeof(cwd)))
		return say(c, EXIT_OTHER, "the current directory: %s", strerror(errno));
	dir = stat(given, &st) == 0 && S_ISDIR(st.st_mode);
	if ((size_t)snprintf(out, len, "%s%s%s%s", given[0] == '/' ? "" : cwd, given[0] == '/' ? "" : "/", given,
			     dir && given[strlen(given) - 1] != '/' ? "/" : "") >= len)
		return say_usage(c, "'%s' is too long", given);
	return 0;
}

int cmd_checkpoint(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "leave-running", no_argument, NULL, 'R' }, { "term", no_argument, NULL, OPT_TERM },
		{ "output", required_argument, NULL, 'o' },  { "timeout", required_argument, NULL, OPT_TIMEOUT },
		{ "times", no_argument, NULL, 't' },	     { "help", no_argument, NULL, 'h' },
		{ "pin", no_argument, NULL, OPT_PIN },	     { "compress", required_argument, NULL, OPT_COMPRESS },
		{ "full", no_argument, NULL, OPT_FULL },     { "keep", required_argument, NULL, OPT_KEEP },
		{ NULL, 0, NULL, 0 },
	};
	struct operation m = { .c = c, .fd = -1, .signals = -1, .to = "image", .result = checkpoint_result };
	char path[PATH_MAX];
	bool stay = false;
	uint64_t n = 0, keep = 0;
	int o;

	LINK_ENVELOPE(q, checkpoint_req, CHECKPOINT_REQ, Pm__CheckpointReq, pm__checkpoint_req__init);
	while ((o = next_option(c, argc, argv, ":Ro:th", longs)) != -1) {
		if (o == 'R')
			stay = true;
		else if (o == OPT_TERM)
			q_body.term = true;
		else if (o == OPT_KEEP && parse_number(c, "--keep", optarg, 1, 1000000, &keep) == 0)
			continue;
		else if (o == OPT_COMPRESS && operation_compress(c, optarg, &q_body.compress))
			continue;
		else if (o == OPT_PIN)
			q_body.pin = true;
		else if (o == OPT_FULL)
			q_body.full = true;
		else if (o == 't')
			m.times = true;
		else if (o == 'o' && !strcmp(optarg, "-"))
			m.pipe = true;
		else if (o == 'o' && whole_path(c, optarg, path, sizeof(path)) == 0)
			q_body.path = path;
		else if (o == OPT_TIMEOUT && parse_number(c, "--timeout", optarg, 0, 86400 * 7, &n) == 0)
			q_body.timeout_s = (uint32_t)n;
		else
			return usage_or_help(c, o);
	}
	if (stay && q_body.term)
		return say_usage(c, "--leave-running and --term exclude each other");
	if (argc - optind != 1)
		return say_usage(c, argc == optind ? "which pod?" : "too many operands");
	q_body.target = argv[optind];
	m.subject = argv[optind];
	if (m.pipe && q_body.path[0])
		return say_usage(c, "an image goes to one place");
	if ((keep || q_body.pin) && (q_body.path[0] || m.pipe))
		return say_usage(c, "%s is for the image store", keep ? "--keep" : "--pin");
	q_body.keep = (uint32_t)keep;
	q_body.stream = m.pipe;
	m.ends = q_body.term;
	if (m.pipe && (o = pipe_check_stdout(c)) != 0)
		return o;
	return operation_run(&m, &q);
}

/* ---- images by name */

/* As the coordinator names a user that has no name. */
static const char *own_name(char *buf, size_t len)
{
	const struct passwd *pw = getpwuid(geteuid());

	snprintf(buf, len, "%u", geteuid());
	if (pw)
		snprintf(buf, len, "%s", pw->pw_name);
	return buf;
}

void own_store(struct ctx *c, char *out, size_t len)
{
	char user[64];

	snprintf(out, len, "%s/%s", c->conf.images_dir, own_name(user, sizeof(user)));
}

/* In the store of ours; root looks in everybody's. */
static bool find_in_store(struct ctx *c, const char *name, char *out, size_t len)
{
	struct dirent *de;
	char user[64];
	DIR *dir;

	snprintf(out, len, "%s/%s/%s" IMAGE_SUFFIX, c->conf.images_dir, own_name(user, sizeof(user)), name);
	if (access(out, F_OK) == 0)
		return true;
	dir = geteuid() == 0 ? opendir(c->conf.images_dir) : NULL;
	out[0] = 0;
	while (dir && (de = readdir(dir))) {
		snprintf(out, len, "%s/%s/%s" IMAGE_SUFFIX, c->conf.images_dir, de->d_name, name);
		if (de->d_name[0] != '.' && access(out, F_OK) == 0)
			break;
		out[0] = 0;
	}
	if (dir)
		closedir(dir);
	return out[0];
}

bool have_image(struct ctx *c, const char *name)
{
	char path[PATH_MAX];
	struct image im;

	if (find_in_store(c, name, path, sizeof(path)))
		return true;
	if (access(name, F_OK) < 0 || image_open(&im, name, NULL, &(struct err){ 0 }) < 0)
		return false;
	image_close(&im);
	return true;
}

/* The path of @name: as it is, or in the store. */
int find_image(struct ctx *c, const char *name, char *out, size_t len, bool *in_store)
{
	if (strchr(name, '/') || access(name, F_OK) == 0) {
		autofree char *whole = realpath(name, NULL);

		if (!whole)
			return say(c, EXIT_NOTFOUND, "'%s': %s", name, strerror(errno));
		snprintf(out, len, "%s", whole);
		return 0;
	}
	if (in_store)
		*in_store = true;
	if (find_in_store(c, name, out, len))
		return 0;
	say(c, EXIT_NOTFOUND, "there is no image '%s'", name);
	fprintf(stderr, "hint: podctl image list; an image that is not in the store is named by its path\n");
	return EXIT_NOTFOUND;
}

int image_error(struct ctx *c, const struct err *e)
{
	return say(c, e->code == -EBADMSG || e->code == -EOPNOTSUPP ? EXIT_IMAGE :
		      e->code == -EACCES			    ? EXIT_DENIED :
		      e->code == -ENOENT			    ? EXIT_NOTFOUND :
								      EXIT_OTHER,
		   "%s", e->msg);
}

/* An exit code, after it has said what is wrong. */
static int open_image(struct ctx *c, struct image *im, const char *path)
{
	struct err e = { 0 };

	return image_open(im, path, NULL, &e) < 0 ? image_error(c, &e) : 0;
}

static Pm__PodSpec *spec_of(struct ctx *c, const struct image *im)
{
	Pm__PodSpec *spec = pm__pod_spec__unpack(NULL, im->head->spec.len, im->head->spec.data);

	if (!spec)
		say(c, EXIT_IMAGE, "image '%s': it does not say what pod it is", im->head->id);
	return spec;
}

/* ---- restore */

static int restore_result(struct operation *m, const Pm__MigrateRep *r)
{
	char total[32];

	operation_close_line(m);
	for (size_t i = 0; i < r->n_notes; i++)
		fprintf(stderr, "note: %s\n", clean(r->notes[i]));
	if (r->pods && m->dry_run)
		printf("%s: all %u pods can be restored; nothing was made\n", r->pod, r->pods);
	else if (r->pods)
		printf("%s: %u pods restored in %s\n", r->pod, r->pods, human_ns(total, sizeof(total), r->total_ns));
	else if (m->dry_run)
		printf("%s: can be restored on %s; nothing was made\n", r->pod, r->to);
	else
		printf("%s: restored on %s in %s\n", r->pod, r->to, human_ns(total, sizeof(total), r->total_ns));
	return EXIT_OK;
}

int restore_image(struct ctx *c, struct operation *m, Pm__RestoreReq *req, const char *path, const char *name)
{
	Pm__Envelope q;
	Pm__PodSpec *spec;
	struct image im;
	struct stat st;
	int code = open_image(c, &im, path);

	if (code)
		return code;
	spec = spec_of(c, &im);
	if (spec && fstat(im.fd, &st) == 0) {
		char *own = spec->name;

		req->epoch = im.head->epoch;
		req->owner = st.st_uid;
		req->owner_gid = st.st_gid;
		if (name)
			spec->name = (char *)(uintptr_t)name;
		req->spec = spec;
		m->subject = spec->name;
		pm__envelope__init(&q);
		q.body_case = PM__ENVELOPE__BODY_RESTORE_REQ;
		q.restore_req = req;
		image_close(&im);
		code = operation_run(m, &q);
		spec->name = own;
	} else {
		image_close(&im);
		code = EXIT_IMAGE;
	}
	if (spec)
		pm__pod_spec__free_unpacked(spec, NULL);
	return code;
}

/* A job's image: what a directory holds, or by its name in the store. True: that was meant; then *@code. */
static bool find_job(struct ctx *c, const char *name, struct cut *out, bool *in_store, int *code)
{
	char path[PATH_MAX];
	struct stat st;
	int r;

	own_store(c, path, sizeof(path) - NAME_MAX - 1);
	if (stat(name, &st) == 0 && S_ISDIR(st.st_mode)) {
		if (!realpath(name, path)) {
			*code = say(c, EXIT_NOTFOUND, "'%s': %s", name, strerror(errno));
			return true;
		}
		r = cut_find(c, path, NULL, NULL, out);
		if (r == 0)
			r = -say(c, EXIT_NOTFOUND, "'%s' has no image of a job", name);
	} else if (strchr(name, '/') || access(name, F_OK) == 0) {
		return false;
	} else {
		snprintf(path + strlen(path), NAME_MAX + 1, "/%s" IMAGE_SUFFIX, name);
		if (access(path, F_OK) == 0) /* a pod's name goes before a job's */
			return false;
		r = cut_find_in_store(c, name, NULL, out);
		*in_store = r == 1;
	}
	*code = r < 0 ? -r : 0;
	return r != 0;
}

int cmd_restore(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "node", required_argument, NULL, 'N' },    { "name", required_argument, NULL, 'n' },
		{ "dry-run", no_argument, NULL, OPT_DRY_RUN }, { "force", required_argument, NULL, OPT_FORCE },
		{ "help", no_argument, NULL, 'h' },	     { NULL, 0, NULL, 0 },
	};
	struct operation m = { .c = c, .fd = -1, .signals = -1, .result = restore_result };
	const char *name = NULL;
	struct cut cut = { .n = 0 };
	bool in_store = false, piped;
	char path[PATH_MAX];
	Pm__RestoreReq req;
	int o, code;

	pm__restore_req__init(&req);
	while ((o = next_option(c, argc, argv, ":N:n:h", longs)) != -1) {
		if (o == 'N')
			req.node = optarg;
		else if (o == 'n')
			name = optarg;
		else if (o == OPT_DRY_RUN)
			req.dry_run = true;
		else if (o == OPT_FORCE && !strcmp(optarg, "files"))
			req.force_files = true;
		else if (o == OPT_FORCE)
			return say_usage(c, "--force: '%s' cannot be forced; files can", optarg);
		else
			return usage_or_help(c, o);
	}
	if (argc - optind != 1)
		return say_usage(c, argc == optind ? "which image?" : "too many operands");
	m.dry_run = req.dry_run;
	m.to = req.node[0] ? req.node : "a node";
	piped = !strcmp(argv[optind], "-");
	if (!piped && find_job(c, argv[optind], &cut, &in_store, &code)) {
		if (!code && name)
			code = say_usage(c, "'%s' is an image of %zu pods: they keep their names", argv[optind], cut.n);
		else if (!code)
			code = cut_restore(&m, &req, &cut, in_store);
		cut_done(&cut);
		return code;
	}
	code = piped ? pipe_take_image(c, path, sizeof(path)) : find_image(c, argv[optind], path, sizeof(path), &in_store);
	if (code)
		return code;
	if (in_store)
		req.id = argv[optind];
	else
		req.path = path;
	code = restore_image(c, &m, &req, path, name);
	if (piped)
		unlink(path);
	return code;
}

/* ---- image list, verify */

struct listing {
	struct ctx *c;
	struct libscols_table *table;
	json_t *json;
	size_t bad;
};

static void list_one(struct listing *l, int fd, const char *dir, const char *file)
{
	char size[32], when[32], path[PATH_MAX + NAME_MAX], id[NAME_MAX + 1];
	struct err e = { 0 };
	struct libscols_line *line;
	struct image im;
	Pm__PodSpec *spec;
	struct tm tm;
	char *dot;
	time_t t;

	if (image_open_at(&im, fd, file, &e) < 0) {
		l->bad++;
		say(l->c, EXIT_IMAGE, "%s: %s", dir, e.msg);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	snprintf(id, sizeof(id), "%.*s", (int)(strrchr(file, '.') - file), file);
	spec = pm__pod_spec__unpack(NULL, im.head->spec.len, im.head->spec.data);
	dot = strrchr(im.head->parent, '.');
	if (dot && !strcmp(dot, IMAGE_SUFFIX))
		*dot = 0;
	t = (time_t)(im.head->created_ns / NSEC_PER_SEC);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", localtime_r(&t, &tm));
	human_size(size, sizeof(size), im.size);
	for (char *s = size; *s; s++)
		if (*s == ' ') /* one word per cell */
			memmove(s, s + 1, strlen(s));
	if (l->json) { /* what is not UTF-8 could not be said there */
		char id_words[NAME_MAX + 1], path_words[PATH_MAX];

		if (spec)
			clean(spec->name), clean(spec->user);
		clean(im.head->node);
		clean(im.head->parent);
		json_array_append_new(l->json, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:s}", "id",
							 clean_copy(id_words, sizeof(id_words), id), "pod",
							 spec ? spec->name : "", "node", im.head->node, "user",
							 spec ? spec->user : "", "path",
							 clean_copy(path_words, sizeof(path_words), path), "parent",
							 im.head->parent, "bytes",
							 (json_int_t)im.size, "created_ns",
							 (json_int_t)im.head->created_ns, "ended", im.head->ended,
							 "pinned", store_pinned(fd, file), "job",
							 clean(im.head->cut_name)));
	} else if ((line = scols_table_new_line(l->table, NULL))) {
		char words[NAME_MAX + 1];
		const char *cell[] = { id, spec ? spec->name : "-", im.head->node[0] ? im.head->node : "-",
				       spec ? spec->user : "-", when, size, store_pinned(fd, file) ? "yes" : "-",
				       im.head->cut_name[0] ? im.head->cut_name : "-",
				       im.head->parent[0] ? im.head->parent : "-" };

		for (size_t i = 0; i < ARRAY_SIZE(cell); i++)
			scols_line_set_data(line, i, clean_copy(words, sizeof(words), cell[i]));
	}
	if (spec)
		pm__pod_spec__free_unpacked(spec, NULL);
	image_close(&im);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strverscmp((*a)->d_name, (*b)->d_name);
}

/* A user's directory: it may be anything that the user made of it. */
static void list_dir(struct listing *l, const char *dir)
{
	autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent **names;
	int n = fd < 0 ? -1 : scandirat(fd, ".", &names, NULL, by_name);

	for (int i = 0; i < n; i++) {
		const char *dot = strrchr(names[i]->d_name, '.');

		if (dot && names[i]->d_name[0] != '.' && !strcmp(dot, IMAGE_SUFFIX))
			list_one(l, fd, dir, names[i]->d_name);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static void list_all(struct listing *l)
{
	const char *store = l->c->conf.images_dir;
	struct dirent **names;
	char dir[PATH_MAX], user[64];
	int n;

	if (geteuid() != 0) {
		snprintf(dir, sizeof(dir), "%s/%s", store, own_name(user, sizeof(user)));
		list_dir(l, dir);
		return;
	}
	n = scandir(store, &names, NULL, by_name);
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.' &&
		    (size_t)snprintf(dir, sizeof(dir), "%s/%s", store, names[i]->d_name) < sizeof(dir))
			list_dir(l, dir);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static int image_list(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, OPT_JSON },
					       { "noheadings", no_argument, NULL, OPT_NOHEADINGS },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	static const char *const columns[] = { "IMAGE", "POD", "NODE", "USER", "CREATED", "SIZE", "PINNED", "JOB", "PARENT" };
	struct listing l = { .c = c };
	bool noheadings = false;
	int o;

	while ((o = next_option(c, argc, argv, ":h", longs)) != -1) {
		if (o == OPT_JSON)
			l.json = l.json ? l.json : json_array();
		else if (o == OPT_NOHEADINGS)
			noheadings = true;
		else
			return usage_or_help(c, o);
	}
	if (optind < argc)
		return say_usage(c, "what is '%s'?", argv[optind]);
	if (!l.json) {
		l.table = scols_new_table();
		for (size_t i = 0; l.table && i < ARRAY_SIZE(columns); i++)
			scols_table_new_column(l.table, columns[i], 0, i == 5 ? SCOLS_FL_RIGHT : 0);
		if (!l.table)
			return say(c, EXIT_OTHER, "no memory");
		scols_table_enable_noheadings(l.table, noheadings);
	}
	list_all(&l);
	if (l.json) {
		json_dumpf(l.json, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
		json_decref(l.json);
	} else {
		scols_print_table(l.table);
		scols_unref_table(l.table);
	}
	return l.bad ? EXIT_IMAGE : EXIT_OK;
}

int image_operands(struct ctx *c, int argc, char **argv, int *code)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	int o = next_option(c, argc, argv, ":h", longs);

	if (o == -1 && optind < argc)
		return 0;
	*code = o == -1 ? say_usage(c, "which image?") : o == 'h' ? EXIT_OK : usage_code(c);
	return -1;
}

static void say_whole(const char *name, struct image_chain *c)
{
	uint64_t stored = 0, pages = 0, packed = 0, k;

	for (size_t i = 0; i < c->n; i++) {
		stored += image_stored(&c->im[i], &k);
		packed += k;
		pages += c->im[i].npages;
	}
	printf("%s: whole, digest %016lx", name, (unsigned long)chain_top(c)->digest);
	if (packed)
		printf(", pages compressed to %lu %%", (unsigned long)(stored * 100 / (pages * PAGE)));
	printf(", %zu image%s\n", c->n, c->n == 1 ? "" : "s");
}

static int image_check(struct ctx *c, int argc, char **argv)
{
	char path[PATH_MAX];
	int code = EXIT_OK;

	if (image_operands(c, argc, argv, &code) < 0)
		return code;
	for (int i = optind; i < argc; i++) {
		struct image_chain chain;
		struct err e = { 0 };
		int r = find_image(c, argv[i], path, sizeof(path), NULL);

		if (!r && chain_open(&chain, path, NULL, &e) < 0) {
			r = image_error(c, &e);
		} else if (!r) {
			for (size_t k = 0; !r && k < chain.n; k++)
				if (image_verify(&chain.im[k], &e) < 0)
					r = say(c, e.code == -EBADMSG ? EXIT_IMAGE : EXIT_OTHER, "image '%s': %s",
						chain.im[k].head->id, e.msg);
			if (!r)
				say_whole(clean(argv[i]), &chain);
			chain_close(&chain);
		}
		code = code ? code : r;
	}
	return code;
}

int cmd_image(struct ctx *c, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct ctx *, int argc, char **argv);
	} verbs[] = { { "list", image_list }, { "verify", image_check }, { "prune", image_prune }, { "rm", image_remove },
		    { "core", image_core }, { "diff", image_diff },
		    { "pin", image_pin }, { "unpin", image_unpin } };

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return next_option(c, argc, argv, "+:h", (const struct option[]){ { "help", 0, NULL, 'h' }, { 0 } }) == 'h' ?
			       EXIT_OK : EXIT_USAGE;
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i].name, argv[1]))
			return verbs[i].run(c, argc - 1, argv + 1);
	return say_usage(c, argc > 1 ? "'%s' is unknown" : "list, verify, diff, prune, rm, pin, unpin or core?",
			 argc > 1 ? argv[1] : "");
}
