/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The client's end of a session's console: see console.c. */
#ifndef CMD_CONSOLE_H
#define CMD_CONSOLE_H

#include "coordinator/cmd/client.h"

struct console_args {
	const char *pod;
	uint32_t session;
	bool tty;	 /* the session has a pty and we a terminal: raw mode, window size */
	bool want_stdin; /* feed it ours */
	bool follow;	 /* until it ends, not until now */
	bool from_now;	 /* not what was said before */
	bool logs;	 /* its code is not ours */
	bool own;	 /* we made it: not finding it is worth a few tries */
};

/**
 * Attaches and relays until the session ends; re-attaches by itself when the connection breaks.
 * @fd: a greeted connection to the coordinator, or one on which ExecReq was answered; taken over.
 * Returns the session's exit code, or (after saying why) one of ours; 0 when the user detached.
 */
int console_run(const struct ctx *, const struct console_args *, int fd);
/** Rows and columns of our terminal; 0 if none. */
void console_size(uint32_t *rows, uint32_t *cols);

#endif
