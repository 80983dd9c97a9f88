/*-------------------------------------------------------------------------
 *
 * config_read.h
 *	  The parts of a configuration out of what a user has written.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/config_read.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_CONFIG_READ_H
#define LOKY_CONFIG_READ_H

#include "utils/jsonb.h"

#include "codec.h"
#include "config.h"

extern void loky_config_read_settings(Jsonb *object, StringInfo part);
extern void loky_config_read_initializer(LokyConfigDraft *draft,
										 const char *task,
										 const LokyValues *args);

#endif							/* LOKY_CONFIG_READ_H */
