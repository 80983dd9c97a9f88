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

extern bool loky_settings_may_install(const char *name);

/* the submitter's side */
extern dsa_pointer loky_settings_capture(void);
extern const char *loky_settings_key(Size *len);
extern void loky_settings_forget(void);

/* the worker's side */
extern void loky_settings_install(const LokyConfig *config);
extern void loky_settings_apply(dsa_pointer env);
extern uint64 loky_settings_applied(void);
extern int	loky_settings_begin(void);
extern void loky_settings_note_kept(void);
extern void loky_settings_end(int nest_level);
extern void loky_settings_restore_kept(void);
extern void loky_settings_put_back(void);
extern void loky_settings_adopt(void);
extern void loky_settings_use_path(const char *path);

#endif							/* LOKY_SETTINGS_H */
