/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings of a session, taken along with each task.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/settings.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SETTINGS_H
#define LOKY_SETTINGS_H

#include "utils/dsa.h"

#include "config.h"

struct config_generic;

/*
 * A session's settings stand as "name\0", a letter for the rights with which the
 * value was set ('s': a superuser's, 'u': those of the role that set it), the OID
 * of that role in so many hexadecimal digits, and "value\0".
 */
#define LOKY_SETTINGS_ROLE_DIGITS	8

/* the submitter's side (settings_capture.c) */
extern bool loky_settings_may_install(const char *name);
extern bool loky_settings_may_be_taken(const struct config_generic *setting);
extern char loky_settings_rights(const struct config_generic *setting);
extern const char *loky_settings_text(struct config_generic *setting);
extern dsa_pointer loky_settings_capture(void);
extern void loky_settings_forget(void);

/* the worker's side (settings.c) */
extern bool loky_settings_are_present(const struct config_generic *setting);
extern void loky_settings_install(const LokyConfig *config);
extern void loky_settings_apply(dsa_pointer env, MemoryContext context);
extern int	loky_settings_begin(void);
extern void loky_settings_note_kept(void);
extern void loky_settings_end(int nest_level);
extern void loky_settings_restore_kept(void);
extern void loky_settings_put_back(void);
extern void loky_settings_adopt(void);
extern void loky_settings_use_path(const char *path);

#endif							/* LOKY_SETTINGS_H */
