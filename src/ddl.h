/*-------------------------------------------------------------------------
 *
 * ddl.h
 *	  Commands of the server for which workers have to leave.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/ddl.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_DDL_H
#define LOKY_DDL_H

extern void loky_ddl_install(void);

#endif							/* LOKY_DDL_H */
