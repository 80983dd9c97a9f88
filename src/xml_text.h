/*-------------------------------------------------------------------------
 *
 * xml_text.h
 *	  Text as XML has it, in plain ASCII.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/xml_text.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOKY_XML_TEXT_H
#define LOKY_XML_TEXT_H

#include "lib/stringinfo.h"

extern void loky_xml_append(StringInfo xml, const char *text, int nchars);

#endif							/* LOKY_XML_TEXT_H */
