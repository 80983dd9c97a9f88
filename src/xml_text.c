/*-------------------------------------------------------------------------
 *
 * xml_text.c
 *	  Text as XML has it, in plain ASCII.
 *
 * What is not ASCII is written by its number, so a document is the same in any
 * encoding: that of the database, of the client, and of the file that it ends in.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/xml_text.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

#include "xml_text.h"

/* What stands for a character that XML cannot have. */
#define REPLACEMENT		0xFFFD

/*
 * The number of a character of the database's encoding that is not ASCII; '?' where
 * it has none.
 */
static pg_wchar
code_point(const char *text, int len)
{
	unsigned char utf8[MAX_MULTIBYTE_CHAR_LEN * MAX_CONVERSION_GROWTH + 1];
	int			encoding = GetDatabaseEncoding();
	Oid			proc;

	if (encoding == PG_UTF8)
		return utf8_to_unicode((const unsigned char *) text);
	proc = encoding == PG_SQL_ASCII ? InvalidOid :
		FindDefaultConversionProc(encoding, PG_UTF8);
	if (!OidIsValid(proc) ||
		pg_do_encoding_conversion_buf(proc, encoding, PG_UTF8,
									  (unsigned char *) unconstify(char *, text),
									  len, utf8, sizeof(utf8), true) != len)
		return '?';
	return utf8_to_unicode(utf8);
}

static void
append_ascii(StringInfo xml, char c)
{
	switch (c)
	{
		case '<':
			appendStringInfoString(xml, "&lt;");
			break;
		case '>':
			appendStringInfoString(xml, "&gt;");
			break;
		case '&':
			appendStringInfoString(xml, "&amp;");
			break;
		case '"':
			appendStringInfoString(xml, "&quot;");
			break;
		default:
			appendStringInfoChar(xml, c < ' ' || c == 0x7F ? ' ' : c);
			break;
	}
}

/*
 * Append the text, which is valid in the database's encoding; where it has more than
 * so many characters, fewer and an ellipsis.
 */
void
loky_xml_append(StringInfo xml, const char *text, int nchars)
{
	bool		cut = pg_mbstrlen(text) > nchars;

	for (int n = cut ? nchars - 1 : nchars; n > 0 && *text != '\0'; n--)
	{
		int			len = pg_mblen(text);
		pg_wchar	c = IS_HIGHBIT_SET(*text) ? code_point(text, len) :
			(pg_wchar) *text;

		if (c < 0x80)
			append_ascii(xml, (char) c);
		else
			appendStringInfo(xml, "&#%u;", (unsigned int)
							 (c == 0xFFFE || c == 0xFFFF ? REPLACEMENT : c));
		text += len;
	}
	if (cut)
		appendStringInfoString(xml, "&#8230;");
}
