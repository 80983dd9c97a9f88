/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *	  A caller's snapshot, for its workers.
 *
 * The workers of a map run in transactions of their own that see what the caller's
 * statement sees, but for what the caller's transaction itself has done.  To the
 * worker that transaction is one of somebody else and still in progress.  A
 * snapshot does not list its own transaction, though; whoever uses it elsewhere
 * would take the transaction for aborted, and would write so into the hint bits of
 * its rows, for good.  So the copy lists it, as one exported by the server does,
 * with all its subtransactions that are under way or have ended well.  These are
 * known from the process's own entry in the shared array of processes, which is
 * where others would take them from.
 *
 * The worker's transaction is REPEATABLE READ: its first snapshot is that of the
 * caller, and it stays.  What makes it safe to use is that the caller still holds
 * it: then no row that it sees can have been removed.  The server checks that
 * the caller's process holds one that is no newer, at the moment of the import.
 *
 * Copyright (c) 2026, loky contributors
 *
 * IDENTIFICATION
 *	  src/snapshot.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

#include "area.h"
#include "compat.h"
#include "snapshot.h"

/* Constant once it is shared; in the area. */
typedef struct LokySharedSnapshot
{
	int			procno;			/* of the process that holds it */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} LokySharedSnapshot;

#define DATA_OFFSET		MAXALIGN(offsetof(LokySharedSnapshot, data))

/* List the present transaction among those in progress, in memory of our own. */
static void
add_top(SnapshotData *snapshot)
{
	TransactionId top = GetTopTransactionIdIfAny();
	TransactionId *xip;

	if (!TransactionIdIsValid(top) ||
		!TransactionIdPrecedes(top, snapshot->xmax))
		return;
	xip = palloc((snapshot->xcnt + 1) * sizeof(TransactionId));
	if (snapshot->xcnt > 0)
		memcpy(xip, snapshot->xip, snapshot->xcnt * sizeof(TransactionId));
	xip[snapshot->xcnt++] = top;
	snapshot->xip = xip;
}

/* ... and its subtransactions, or say that some are missing. */
static void
add_children(SnapshotData *snapshot)
{
	int			n = MyProc->subxidStatus.count;
	TransactionId *subxip;

	if (n == 0 && !MyProc->subxidStatus.overflowed)
		return;
	if (snapshot->suboverflowed || MyProc->subxidStatus.overflowed ||
		snapshot->subxcnt + n > GetMaxSnapshotSubxidCount())
	{
		/* readers look for the parent of each transaction then */
		snapshot->suboverflowed = true;
		return;
	}
	subxip = palloc((snapshot->subxcnt + n) * sizeof(TransactionId));
	if (snapshot->subxcnt > 0)
		memcpy(subxip, snapshot->subxip,
			   snapshot->subxcnt * sizeof(TransactionId));
	memcpy(subxip + snapshot->subxcnt, MyProc->subxids.xids,
		   n * sizeof(TransactionId));
	snapshot->subxcnt += n;
	snapshot->subxip = subxip;
}

/*
 * A copy of the present statement's snapshot in the area, to be freed by the caller;
 * invalid where there is no memory.  Good as long as the statement runs.  Raises
 * 0A000 in a SERIALIZABLE transaction: what others read for it would not be
 * guarded against conflicts.
 */
dsa_pointer
loky_snapshot_share(void)
{
	SnapshotData copy;
	LokySharedSnapshot *shared;
	dsa_pointer dp;

	if (IsolationIsSerializable())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot share the snapshot of a serializable transaction"),
				 errdetail("What workers read would not be guarded against conflicts with other transactions."),
				 errhint("Use REPEATABLE READ, or snapshot => false.")));
	copy = *GetActiveSnapshot();
	add_top(&copy);
	add_children(&copy);
	dp = loky_area_alloc(DATA_OFFSET + EstimateSnapshotSpace(&copy));
	if (!DsaPointerIsValid(dp))
		return InvalidDsaPointer;
	shared = loky_area_address(dp);
	shared->procno = LokyMyProcNumber();
	SerializeSnapshot(&copy, (char *) shared + DATA_OFFSET);
	return dp;
}

/*
 * Make the snapshot that of the transaction that has just begun, in which nothing
 * has taken one yet.  Raises 55000 where its owner does not hold it any more.
 */
void
loky_snapshot_adopt(dsa_pointer dp)
{
	LokySharedSnapshot *shared = loky_area_address(dp);
	Snapshot	snapshot = RestoreSnapshot((char *) shared + DATA_OFFSET);

	XactIsoLevel = XACT_REPEATABLE_READ;
	RestoreTransactionSnapshot(snapshot,
							   &ProcGlobal->allProcs[shared->procno]);
	pfree(snapshot);
}
