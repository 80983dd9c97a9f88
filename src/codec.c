/*-------------------------------------------------------------------------
 *
 * codec.c
 *	  Values, rows and row descriptors in a form that any process can read.
 *
 * This file owns three flat forms, for processes of one server at one time:
 * - a list of values: a count, then a head (type, length) per value, then the
 *	 values, each MAXALIGNed from the start of the list; reading it takes no
 *	 look into the catalog;
 * - a row descriptor: the number of attributes, then each as pg_attribute has
 *	 it, unaligned;
 * - a packed value, which is an anonymous row or an array of such, as a bytea:
 *	 the number of shapes, the value, then the descriptor of each shape.
 *
 * Hazards
 * -------
 * 1. The typmod of an anonymous row is the number of its row type in this
 *	  process, and rows nest.  Packing copies the value byte by byte and then
 *	  replaces each such number, at any depth, by that of a shape; unpacking
 *	  registers the shapes and puts in the numbers of its own process.  So a
 *	  million rows of one shape share one descriptor, and none is formed anew.
 * 2. A small row inside of a row has a one-byte header and no alignment.  It
 *	  is read through an aligned copy, but changed in place: "target" is always
 *	  the place of the first byte after the length word.
 * 3. Only RECORD and RECORD[] can hold anonymous rows: no type of the catalog
 *	  has them as column, element or base.  A RECORD can also hold a row of a
 *	  named type, which every process knows and which stays untouched.
 * 4. The header of a row datum has more in it than length, type and typmod.
 *	  It is copied, never built here, and opened by DatumGetHeapTupleHeader().
 *	  A minimal tuple must not have the flags of a datum, as the fields that
 *	  they vouch for lie before its first byte.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/codec.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "codec.h"

/* what is known of a value in a list before it is read */
typedef struct ValueHead
{
	Oid			type;
	int32		length;			/* or one of these: */
#define LENGTH_NULL		(-1)
#define LENGTH_BYVAL	(-2)
} ValueHead;

/* a translation of typmods: into numbers of shapes, or out of them */
typedef struct Translation
{
	bool		packing;
	List	   *shapes;			/* of TupleDesc; pinned when packing */
} Translation;

StaticAssertDecl(offsetof(DatumTupleFields, datum_typmod) == VARHDRSZ,
				 "the typmod of a row datum must follow its length word");

/*
 * The next size bytes at *pos, which moves on; they must not pass end.
 */
static const char *
take_bytes(const char **pos, const char *end, int64 size)
{
	const char *bytes = *pos;

	if (size < 0 || size > end - bytes)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("encoded data has an impossible length")));
	*pos += size;
	return bytes;
}

/*
 * Make room in buf for size bytes, with zeros up to the next aligned offset.
 */
static inline char *
extend_buffer(StringInfo buf, Size size)
{
	Size		padded = MAXALIGN(size);
	char	   *place;

	enlargeStringInfo(buf, (int) Min(padded, MaxAllocSize));
	place = buf->data + buf->len;
	buf->len += (int) padded;
	memset(place + size, 0, padded - size + 1);
	return place;
}

/*
 * Does a type hold rows whose columns are known in one process only?
 */
bool
loky_codec_is_anonymous(Oid type)
{
	return type == RECORDOID || type == RECORDARRAYOID;
}

/*
 * The typlen of a type, 0 if by value; common types take no catalog look-up.
 */
static inline int16
lookup_length(Oid type)
{
	int16		typlen;
	bool		typbyval;

	switch (type)
	{
		case BOOLOID:
		case INT4OID:
		case OIDOID:
			return 0;
		case INT8OID:
		case FLOAT8OID:
		case TIMESTAMPTZOID:
			return FLOAT8PASSBYVAL ? 0 : sizeof(int64);
		case TEXTOID:
		case NUMERICOID:
		case JSONBOID:
			return -1;
		default:
			get_typlenbyval(type, &typlen, &typbyval);
			return typbyval ? 0 : typlen;
	}
}

/*
 * A varlena without pointers to elsewhere: a palloc'd one if it has to be
 * fetched, flattened or packed, else the same.
 */
static inline Datum
flatten_varlena(Datum value, Oid type)
{
	struct varlena *pointer = (struct varlena *) DatumGetPointer(value);

	if (loky_codec_is_anonymous(type))
		return loky_codec_pack(value, type);
	if (VARATT_IS_EXTERNAL(pointer))
		return PointerGetDatum(detoast_external_attr(pointer));
	return value;
}

/*
 * Append a self-contained list of values to buf, for decode_values().
 *
 * The list starts where buf ends, which is MAXALIGNed, and ends MAXALIGNed as well.
 * Raises 54000 if it passes the limit of buf.
 */
void
loky_codec_encode_values(StringInfo buf, int n, const Oid *types,
						 const Datum *values, const bool *nulls)
{
	int64		count = n;
	int			heads;

	Assert(buf->len % MAXIMUM_ALIGNOF == 0);
	memcpy(extend_buffer(buf, sizeof(count)), &count, sizeof(count));
	heads = buf->len;
	extend_buffer(buf, n * sizeof(ValueHead));

	for (int i = 0; i < n; i++)
	{
		ValueHead	head = {types[i], LENGTH_NULL};
		int16		typlen = nulls[i] ? 0 : lookup_length(types[i]);
		Datum		flat = values[i];

		if (typlen != 0)
		{
			if (typlen == -1)
				flat = flatten_varlena(values[i], types[i]);
			head.length = (int32) datumGetSize(flat, false, typlen);
			memcpy(extend_buffer(buf, head.length), DatumGetPointer(flat),
				   head.length);
			if (flat != values[i])
				pfree(DatumGetPointer(flat));
		}
		else if (!nulls[i])
		{
			head.length = LENGTH_BYVAL;
			memcpy(extend_buffer(buf, sizeof(Datum)), &flat, sizeof(Datum));
		}
		((ValueHead *) (buf->data + heads))[i] = head;
	}
}

/*
 * Read a list of values from data, which is MAXALIGNed and may be read-only.
 *
 * The arrays of result are palloc'd in the current memory context, as are
 * rebuilt anonymous rows; other pass-by-reference values point into data.
 * Raises ERRCODE_DATA_CORRUPTED on impossible lengths, else as unpack().
 */
void
loky_codec_decode_values(const char *data, Size len, LokyValues *result)
{
	const char *end = data + len;
	int64		n = *(const int64 *) take_bytes(&data, end, sizeof(int64));
	const ValueHead *heads;

	/* a count that is out of range is taken for too many heads */
	heads = (const ValueHead *) take_bytes(&data, end, n == (int32) n ?
										   n * (int64) sizeof(ValueHead) : -1);
	result->n = (int) n;
	result->types = palloc(sizeof(Oid) * n);
	result->values = palloc0(sizeof(Datum) * n);
	result->nulls = palloc(sizeof(bool) * n);

	for (int i = 0; i < n; i++)
	{
		int32		length = heads[i].length;
		const char *place;

		result->types[i] = heads[i].type;
		result->nulls[i] = (length == LENGTH_NULL);
		if (length == LENGTH_NULL)
			continue;
		place = take_bytes(&data, end, length == LENGTH_BYVAL ?
						   (int64) sizeof(Datum) : length);
		data = (const char *) MAXALIGN(data);
		if (length == LENGTH_BYVAL)
			result->values[i] = *(const Datum *) place;
		else if (loky_codec_is_anonymous(heads[i].type))
			result->values[i] = loky_codec_unpack(PointerGetDatum(place),
												  heads[i].type);
		else
			result->values[i] = PointerGetDatum(place);
	}
}

/*
 * Has a row columns that are anonymous rows or arrays of them?
 */
static bool
has_anonymous(TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		if (loky_codec_is_anonymous(TupleDescAttr(desc, i)->atttypid))
			return true;
	}
	return false;
}

/*
 * Append a row descriptor to buf, for decode_desc().
 *
 * Raises 54000 if it passes the limit of buf.
 */
void
loky_codec_encode_desc(StringInfo buf, TupleDesc desc)
{
	appendBinaryStringInfo(buf, (char *) &desc->natts, sizeof(int));
	for (int i = 0; i < desc->natts; i++)
		appendBinaryStringInfo(buf, (char *) TupleDescAttr(desc, i),
							   ATTRIBUTE_FIXED_PART_SIZE);
}

/*
 * Read a row descriptor from *pos, which moves on.
 */
static TupleDesc
read_desc(const char **pos, const char *end)
{
	TupleDesc	desc;
	TupleDesc	result;
	int			natts;

	memcpy(&natts, take_bytes(pos, end, sizeof(int)), sizeof(int));
	end = *pos + Min(end - *pos, MaxTupleAttributeNumber *
					 (int64) ATTRIBUTE_FIXED_PART_SIZE);
	take_bytes(pos, end, natts * (int64) ATTRIBUTE_FIXED_PART_SIZE);

	desc = CreateTemplateTupleDesc(natts);
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		memcpy(att, *pos - (natts - i) * ATTRIBUTE_FIXED_PART_SIZE,
			   ATTRIBUTE_FIXED_PART_SIZE);
		if (loky_codec_is_anonymous(att->atttypid))
			att->atttypmod = -1;	/* the typmod of another process */
		else if (!att->attisdropped &&
				 !SearchSysCacheExists1(TYPEOID,
										ObjectIdGetDatum(att->atttypid)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("type with OID %u of column \"%s\" does not exist",
							att->atttypid, NameStr(att->attname)),
					 errhint("The type of an argument must be committed when the task is submitted, "
							 "that of a result must exist when it is read.")));
	}

	/* the copy has what the server derives from the attributes */
	result = CreateTupleDescCopy(desc);
	FreeTupleDesc(desc);
	return result;
}

/*
 * Is the row descriptor in data that of one value, which a row holds as it is?  Sets
 * its type, the length of that, and whether it is passed in a register.
 */
bool
loky_codec_desc_is_value(const char *data, Size len, Oid *type, int16 *typlen,
						 bool *byval)
{
	FormData_pg_attribute att;
	int			natts;

	if (len != sizeof(int) + ATTRIBUTE_FIXED_PART_SIZE)
		return false;
	memcpy(&natts, data, sizeof(int));
	memcpy(&att, data + sizeof(int), ATTRIBUTE_FIXED_PART_SIZE);
	*type = att.atttypid;
	*typlen = att.attlen;
	*byval = att.attbyval;
	return natts == 1 && !att.attisdropped &&
		!loky_codec_is_anonymous(att.atttypid);
}

/*
 * Read a row descriptor from data, which needs no alignment.
 *
 * Returns a descriptor palloc'd in the current memory context, of type RECORD
 * and not blessed.  Raises ERRCODE_UNDEFINED_OBJECT if there is no such type as
 * that of a column here, ERRCODE_DATA_CORRUPTED on impossible lengths.
 */
TupleDesc
loky_codec_decode_desc(const char *data, Size len)
{
	return read_desc(&data, data + len);
}

/*
 * Replace the typmod of an anonymous row at target; returns its descriptor.
 */
static TupleDesc
translate_typmod(Translation *translation, int32 typmod, char *target)
{
	TupleDesc	desc = NULL;
	int32		shape = 0;

	if (!translation->packing)
	{
		if (typmod < 0 || typmod >= list_length(translation->shapes))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("packed row has an impossible shape %d", typmod)));
		desc = list_nth(translation->shapes, typmod);
		memcpy(target, &desc->tdtypmod, sizeof(int32));
		return desc;
	}

	for (; shape < list_length(translation->shapes); shape++)
	{
		desc = list_nth(translation->shapes, shape);
		if (desc->tdtypmod == typmod)
			break;
	}
	if (shape == list_length(translation->shapes))
	{
		desc = lookup_rowtype_tupdesc(RECORDOID, typmod);
		translation->shapes = lappend(translation->shapes, desc);
	}
	memcpy(target, &shape, sizeof(int32));
	return desc;
}

/*
 * Translate all typmods in a RECORD or RECORD[].  The value is read where it
 * is, and changed at target, where all after its length word lies once more.
 */
static void
translate_value(Translation *translation, Datum value, char *target, Oid type)
{
	char	   *plain = DatumGetPointer(value); /* later with a long header */
	TupleDesc	desc = NULL;	/* NULL: the parts are elements */
	Datum	   *values = NULL;
	bool	   *nulls = NULL;
	int			n = 0;

	check_stack_depth();
	if (VARATT_IS_EXTENDED(plain) && !VARATT_IS_SHORT(plain))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row has a column of rows that is not stored plainly")));

	if (type == RECORDARRAYOID)
	{
		plain = (char *) DatumGetArrayTypeP(value);
		deconstruct_array((ArrayType *) plain, RECORDOID, -1, false,
						  TYPALIGN_DOUBLE, &values, &nulls, &n);
	}
	else
	{
		HeapTupleData row = {.t_data = DatumGetHeapTupleHeader(value)};

		plain = (char *) row.t_data;
		row.t_len = HeapTupleHeaderGetDatumLength(row.t_data);
		if (HeapTupleHeaderGetTypeId(row.t_data) == RECORDOID)
			desc = translate_typmod(translation,
									HeapTupleHeaderGetTypMod(row.t_data),
									target);
		if (desc != NULL && has_anonymous(desc))
		{
			n = desc->natts;
			values = palloc(sizeof(Datum) * n);
			nulls = palloc(sizeof(bool) * n);
			heap_deform_tuple(&row, desc, values, nulls);
		}
	}

	for (int i = 0; i < n; i++)
	{
		Oid			part = desc ? TupleDescAttr(desc, i)->atttypid : RECORDOID;

		if (!nulls[i] && loky_codec_is_anonymous(part))
			translate_value(translation, values[i], target +
							(VARDATA_ANY(DatumGetPointer(values[i])) -
							 VARDATA(plain)), part);
	}

	if (n > 0)
	{
		pfree(values);
		pfree(nulls);
	}
	if (plain != DatumGetPointer(value))
		pfree(plain);
}

/*
 * Pack an anonymous row or an array of such (type is RECORD or RECORD[]).
 *
 * Returns a bytea palloc'd in the current memory context, of which unpack()
 * makes the same value in any process.  Raises 54000 if that is too large.
 */
Datum
loky_codec_pack(Datum value, Oid type)
{
	struct varlena *flat = PG_DETOAST_DATUM(value);
	Translation translation = {.packing = true};
	StringInfoData buf;
	ListCell   *cell;
	int32		nshapes;

	initStringInfo(&buf);
	extend_buffer(&buf, VARHDRSZ + sizeof(nshapes));
	appendBinaryStringInfo(&buf, (char *) flat, VARSIZE(flat));
	translate_value(&translation, PointerGetDatum(flat),
					buf.data + VARHDRSZ + sizeof(nshapes) + VARHDRSZ, type);

	nshapes = list_length(translation.shapes);
	memcpy(buf.data + VARHDRSZ, &nshapes, sizeof(nshapes));
	foreach(cell, translation.shapes)
	{
		loky_codec_encode_desc(&buf, lfirst(cell));
		ReleaseTupleDesc((TupleDesc) lfirst(cell));
	}
	SET_VARSIZE(buf.data, buf.len);

	list_free(translation.shapes);
	if ((Pointer) flat != DatumGetPointer(value))
		pfree(flat);
	return PointerGetDatum(buf.data);
}

/*
 * Rebuild a value of type RECORD or RECORD[] from its packed form.
 *
 * packed needs no alignment and may be read-only.  Returns a value palloc'd in
 * the current memory context, its row types registered in this process.
 * Raises what loky_codec_decode_desc() raises.
 */
Datum
loky_codec_unpack(Datum packed, Oid type)
{
	const char *pos = VARDATA_ANY(DatumGetPointer(packed));
	const char *end = pos + VARSIZE_ANY_EXHDR(DatumGetPointer(packed));
	Translation translation = {.packing = false};
	int32		heads[2];		/* number of shapes, header of the value */
	int64		size;
	char	   *value;

	Assert(!VARATT_IS_EXTENDED(DatumGetPointer(packed)) ||
		   VARATT_IS_SHORT(DatumGetPointer(packed)));
	memcpy(heads, take_bytes(&pos, end, sizeof(heads)), sizeof(heads));
	size = (int64) VARSIZE(&heads[1]) - VARHDRSZ;
	value = palloc(VARSIZE(&heads[1]));
	memcpy(value, &heads[1], VARHDRSZ);
	memcpy(value + VARHDRSZ, take_bytes(&pos, end, size), size);

	for (int i = 0; i < heads[0]; i++)
	{
		TupleDesc	desc = read_desc(&pos, end);

		assign_record_type_typmod(desc);
		translation.shapes = lappend(translation.shapes, desc);
	}
	translate_value(&translation, PointerGetDatum(value), value + VARHDRSZ,
					type);

	for (int i = 0; i < heads[0]; i++)
		FreeTupleDesc(list_nth(translation.shapes, i));
	list_free(translation.shapes);
	return PointerGetDatum(value);
}

/*
 * The descriptor of desc's storage form, in which anonymous columns are bytea.
 *
 * Returns desc itself if it has no such column, else a palloc'd copy.
 */
TupleDesc
loky_codec_storage_desc(TupleDesc desc)
{
	TupleDesc	storage = desc;

	if (has_anonymous(desc))
		storage = CreateTupleDescCopy(desc);
	for (int i = 0; storage != desc && i < desc->natts; i++)
	{
		if (loky_codec_is_anonymous(TupleDescAttr(desc, i)->atttypid))
			TupleDescInitEntry(storage, i + 1,
							   NameStr(TupleDescAttr(desc, i)->attname),
							   BYTEAOID, -1, 0);
	}
	return storage;
}

/*
 * Form a row of desc as a minimal tuple of loky_codec_storage_desc(desc), at a place
 * that is asked for once its size is known.
 *
 * Values stored elsewhere are fetched, anonymous rows are packed.  Raises 54000 if
 * the packed form of a value is too large, and what place raises.
 */
void
loky_codec_form_row(TupleDesc desc, TupleDesc storage, const Datum *values,
					const bool *nulls, LokyCodecPlace place, void *arg)
{
	Datum		flat[MaxTupleAttributeNumber];
	bool	   *isnull = unconstify(bool *, nulls);
	int			natts = desc->natts;
	bool		hasnull = natts > 0 && memchr(nulls, 1, natts) != NULL;
	MinimalTuple row;
	Size		start;
	Size		size;

	flat[0] = (Datum) 0;		/* a row may be without columns */
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		flat[i] = values[i];
		if (!nulls[i] && att->attlen == -1)
			flat[i] = flatten_varlena(values[i], att->atttypid);
	}

	/* the parameters of core's own function differ between versions */
	start = MAXALIGN(SizeofMinimalTupleHeader +
					 (hasnull ? BITMAPLEN(natts) : 0));
	size = heap_compute_data_size(storage, flat, isnull);
	row = place(arg, start + size);
	memset(row, 0, start + size);
	row->t_len = start + size;
	row->t_hoff = start + MINIMAL_TUPLE_OFFSET;
	HeapTupleHeaderSetNatts(row, natts);
	heap_fill_tuple(storage, flat, isnull, (char *) row + start, size,
					&row->t_infomask, hasnull ? row->t_bits : NULL);

	for (int i = 0; i < natts; i++)
	{
		if (flat[i] != values[i])
			pfree(DatumGetPointer(flat[i]));
	}
}

/*
 * The only value of a row that loky_codec_form_row() formed, as the descriptor has it;
 * it may lie in the row.
 */
Datum
loky_codec_row_value(MinimalTuple row, int16 typlen, bool byval, bool *isnull)
{
	*isnull = (row->t_infomask & HEAP_HASNULL) != 0;
	if (*isnull)
		return (Datum) 0;
	return fetch_att((char *) row + row->t_hoff - MINIMAL_TUPLE_OFFSET,
					 byval, typlen);
}

/*
 * Take apart a row that loky_codec_form_row() formed.
 *
 * row is MAXALIGNed and may be read-only.  The values point into it, except
 * for anonymous rows, which are rebuilt in the current memory context.  Raises
 * what loky_codec_unpack() raises.
 */
void
loky_codec_deform_row(MinimalTuple row, TupleDesc desc, TupleDesc storage,
					  Datum *values, bool *nulls)
{
	HeapTupleData tuple = {0};

	tuple.t_len = row->t_len + MINIMAL_TUPLE_OFFSET;
	tuple.t_data = (HeapTupleHeader) ((char *) row - MINIMAL_TUPLE_OFFSET);
	heap_deform_tuple(&tuple, storage, values, nulls);

	for (int i = 0; desc != storage && i < desc->natts; i++)
	{
		Oid			type = TupleDescAttr(desc, i)->atttypid;

		if (!nulls[i] && loky_codec_is_anonymous(type))
			values[i] = loky_codec_unpack(values[i], type);
	}
}
