/*-------------------------------------------------------------------------
 *
 * settings_list.h
 *	  The settings that need a look, out of all that the server has.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/settings_list.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_SETTINGS_LIST_H
#define LOKY_SETTINGS_LIST_H

#include "utils/guc_tables.h"

extern void loky_settings_list_define(void);
extern struct config_generic **loky_settings_list_own(int *n);
extern struct config_generic **loky_settings_list_custom(int *n);

#endif							/* LOKY_SETTINGS_LIST_H */
