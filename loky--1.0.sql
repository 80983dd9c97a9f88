/* loky--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION loky" to load this file. \quit

CREATE SCHEMA loky;
COMMENT ON SCHEMA loky IS 'loky: background workers as a reusable pool';
GRANT USAGE ON SCHEMA loky TO pg_database_owner WITH GRANT OPTION;

-- Submitting

CREATE FUNCTION loky.submit(task text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'loky_submit'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.submit(text) IS
'queues a task, a function without arguments or SQL, and returns its future';

CREATE FUNCTION loky.submit(task text, VARIADIC args "any")
RETURNS bigint
AS 'MODULE_PATHNAME', 'loky_submit'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.submit(text, "any") IS
'queues a task with arguments and returns its future';

CREATE FUNCTION loky.submit_task(task text, args record DEFAULT NULL,
    label text DEFAULT NULL, timeout interval DEFAULT NULL,
    priority integer DEFAULT 0, retries integer DEFAULT 0,
    on_commit boolean DEFAULT false, after bigint[] DEFAULT NULL,
    key text DEFAULT NULL, key_limit integer DEFAULT 1,
    delay interval DEFAULT NULL, retry_on text[] DEFAULT NULL,
    discard boolean DEFAULT false, executor integer DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'loky_submit_task'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.submit_task(text, record, text, interval, integer,
    integer, boolean, bigint[], text, integer, interval, text[], boolean, integer) IS
'queues a task, says when and how often it is to be run, and returns its future';

CREATE FUNCTION loky.submit_all(task text, items anycompatiblearray,
    label text DEFAULT NULL, executor integer DEFAULT NULL)
RETURNS bigint[]
AS 'MODULE_PATHNAME', 'loky_submit_all'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.submit_all(text, anycompatiblearray, text, integer) IS
'queues a task for each item and returns their futures in the items'' order';

CREATE FUNCTION loky.run(task text, args record DEFAULT NULL,
    result anyelement DEFAULT NULL::text, timeout interval DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'loky_run'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION loky.run(text, record, anyelement, interval) IS
'runs a task in a transaction of its own and returns its rows, or raises its error';

-- Futures

CREATE FUNCTION loky.result(future bigint, result anyelement DEFAULT NULL::text,
    timeout interval DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'loky_result'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION loky.result(bigint, anyelement, interval) IS
'waits for a task and returns its rows, or raises its error again';

CREATE FUNCTION loky.exception(future bigint, timeout interval DEFAULT NULL,
    OUT sqlstate text, OUT message text, OUT detail text, OUT hint text,
    OUT context text)
RETURNS record
AS 'MODULE_PATHNAME', 'loky_exception'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.exception(bigint, interval) IS
'waits for a task and returns the error with which it failed, nulls if it did not';

CREATE FUNCTION loky.done(future bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'loky_done'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.done(bigint) IS
'tells whether a task has succeeded, failed or been cancelled';

CREATE FUNCTION loky.running(future bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'loky_running'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.running(bigint) IS
'tells whether a worker runs the task';

CREATE FUNCTION loky.cancelled(future bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'loky_cancelled'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.cancelled(bigint) IS
'tells whether a task has been cancelled';

CREATE FUNCTION loky.state(future bigint)
RETURNS text
AS 'MODULE_PATHNAME', 'loky_state'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.state(bigint) IS
'returns pending, running, succeeded, failed or cancelled';

CREATE FUNCTION loky.cancel(future bigint, running boolean DEFAULT false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'loky_cancel'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.cancel(bigint, boolean) IS
'cancels a pending task, or also a running one; tells whether it ends as cancelled';

CREATE FUNCTION loky.wait(futures bigint[], timeout interval DEFAULT NULL,
    return_when text DEFAULT 'ALL_COMPLETED')
RETURNS TABLE (future bigint, done boolean, state text)
AS 'MODULE_PATHNAME', 'loky_wait'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.wait(bigint[], interval, text) IS
'waits for all tasks, the first one done, or the first one that fails, and returns the state of each';

CREATE FUNCTION loky.as_completed(futures bigint[],
    timeout interval DEFAULT NULL)
RETURNS SETOF bigint
AS 'MODULE_PATHNAME', 'loky_as_completed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.as_completed(bigint[], interval) IS
'returns the futures one after the other as their tasks end';

CREATE FUNCTION loky.add_done_callback(future bigint, task text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'loky_add_done_callback'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.add_done_callback(bigint, text) IS
'queues a task that runs once a future is done, with its id as argument, and returns the task''s own future';

CREATE FUNCTION loky.forget(future bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'loky_forget'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.forget(bigint) IS
'frees a finished future and its result; false if the task is not finished';

-- Mapping

CREATE FUNCTION loky.map(task text, items anycompatiblearray,
    result anyelement DEFAULT NULL::text, timeout interval DEFAULT NULL,
    chunksize integer DEFAULT NULL, ordered boolean DEFAULT true,
    snapshot boolean DEFAULT false, progress boolean DEFAULT false,
    args record DEFAULT NULL, item_timeout interval DEFAULT NULL,
    retries integer DEFAULT 0, label text DEFAULT NULL,
    executor integer DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'loky_map'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.map(text, anycompatiblearray, anyelement, interval,
    integer, boolean, boolean, boolean, record, interval, integer, text, integer) IS
'runs a task for each item on several workers and returns one result for each';

CREATE FUNCTION loky.flat_map(task text, items anycompatiblearray,
    result anyelement DEFAULT NULL::text, timeout interval DEFAULT NULL,
    chunksize integer DEFAULT NULL, ordered boolean DEFAULT true,
    snapshot boolean DEFAULT false, progress boolean DEFAULT false,
    args record DEFAULT NULL, item_timeout interval DEFAULT NULL,
    retries integer DEFAULT 0, label text DEFAULT NULL,
    executor integer DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'loky_flat_map'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.flat_map(text, anycompatiblearray, anyelement, interval,
    integer, boolean, boolean, boolean, record, interval, integer, text, integer) IS
'runs a task for each item on several workers and returns all rows of each';

CREATE FUNCTION loky.try_map(task text, items anycompatiblearray,
    result anyelement, timeout interval DEFAULT NULL,
    chunksize integer DEFAULT NULL, ordered boolean DEFAULT true,
    snapshot boolean DEFAULT false, progress boolean DEFAULT false,
    args record DEFAULT NULL, item_timeout interval DEFAULT NULL,
    retries integer DEFAULT 0, label text DEFAULT NULL,
    executor integer DEFAULT NULL)
RETURNS TABLE (ord bigint, result anyelement, ok boolean, sqlstate text,
    message text, detail text, hint text, context text, worker integer,
    started timestamptz, elapsed interval)
AS 'MODULE_PATHNAME', 'loky_try_map'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.try_map(text, anycompatiblearray, anyelement, interval,
    integer, boolean, boolean, boolean, record, interval, integer, text, integer) IS
'runs a task for each item on several workers and returns a row for each, with its result or its error';

CREATE FUNCTION loky.try_map(task text, items anycompatiblearray,
    timeout interval DEFAULT NULL,
    chunksize integer DEFAULT NULL, ordered boolean DEFAULT true,
    snapshot boolean DEFAULT false, progress boolean DEFAULT false,
    args record DEFAULT NULL, item_timeout interval DEFAULT NULL,
    retries integer DEFAULT 0, label text DEFAULT NULL,
    executor integer DEFAULT NULL)
RETURNS TABLE (ord bigint, result text, ok boolean, sqlstate text,
    message text, detail text, hint text, context text, worker integer,
    started timestamptz, elapsed interval)
AS 'MODULE_PATHNAME', 'loky_try_map_text'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.try_map(text, anycompatiblearray, interval,
    integer, boolean, boolean, boolean, record, interval, integer, text, integer) IS
'runs a task for each item on several workers and returns a row for each, with its result as text or its error';

-- Parallel analytics

CREATE FUNCTION loky.table_chunks(rel regclass, chunks integer DEFAULT NULL)
RETURNS TABLE (chunk integer, lo tid, hi tid)
AS 'MODULE_PATHNAME', 'loky_table_chunks_sql'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.table_chunks(regclass, integer) IS
'cuts a table into ranges of places (ctid >= lo AND ctid < hi) that hold each row exactly once';

CREATE FUNCTION loky.map_table(task text, rel regclass,
    result anyelement DEFAULT NULL::text, chunks integer DEFAULT NULL,
    timeout interval DEFAULT NULL, snapshot boolean DEFAULT true,
    progress boolean DEFAULT false, label text DEFAULT NULL,
    executor integer DEFAULT NULL)
RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'loky_map_table'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.map_table(text, regclass, anyelement, integer,
    interval, boolean, boolean, text, integer) IS
'runs a task for each chunk of a table (WHERE ctid >= $1 AND ctid < $2) on several workers and returns all rows of each';

CREATE FUNCTION loky.key_chunks(rel regclass, key name DEFAULT NULL,
    chunk_rows integer DEFAULT 10000)
RETURNS TABLE (chunk integer, lo text, hi text, rows bigint)
AS 'MODULE_PATHNAME', 'loky_key_chunks_sql'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.key_chunks(regclass, name, integer) IS
'cuts a table into ranges of a key with so many rows each';

CREATE FUNCTION loky.backfill(task text, rel regclass, key name DEFAULT NULL,
    chunk_rows integer DEFAULT 10000, delay interval DEFAULT NULL,
    retries integer DEFAULT 3, ranges jsonb DEFAULT NULL,
    progress boolean DEFAULT false, label text DEFAULT NULL,
    executor integer DEFAULT NULL)
RETURNS TABLE (chunk integer, lo text, hi text, rows bigint, ok boolean,
    attempts integer, sqlstate text, message text, elapsed interval)
AS 'MODULE_PATHNAME', 'loky_backfill'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.backfill(text, regclass, name, integer, interval,
    integer, jsonb, boolean, text, integer) IS
'runs a task for each range of a key (WHERE key BETWEEN $1 AND $2), each in a transaction of its own, and returns a row for each';

-- Executors

CREATE FUNCTION loky.get_reusable_executor(max_workers integer DEFAULT NULL,
    context text DEFAULT NULL, timeout interval DEFAULT NULL,
    kill_workers boolean DEFAULT false, reuse text DEFAULT 'auto',
    job_reducers jsonb DEFAULT NULL, result_reducers jsonb DEFAULT NULL,
    initializer text DEFAULT NULL, initargs record DEFAULT NULL,
    env jsonb DEFAULT NULL, settings jsonb DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'loky_get_reusable_executor'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.get_reusable_executor(integer, text, interval, boolean,
    text, jsonb, jsonb, text, record, jsonb, jsonb) IS
'makes the executor with this configuration the session''s current one, a new one if there is none, and returns its id';

CREATE FUNCTION loky.shutdown(wait boolean DEFAULT true,
    kill_workers boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'loky_shutdown'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.shutdown(boolean, boolean) IS
'ends the session''s current executor once its tasks are done, or at once';

CREATE FUNCTION loky.cpu_count(only_physical_cores boolean DEFAULT false)
RETURNS integer
AS 'MODULE_PATHNAME', 'loky_cpu_count_sql'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION loky.cpu_count(boolean) IS
'returns the number of processors that the server may use';

CREATE FUNCTION loky.getenv(name text)
RETURNS text
AS 'MODULE_PATHNAME', 'loky_getenv'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION loky.getenv(text) IS
'returns an environment variable of the process that runs it, null where unset';

-- Monitoring

CREATE FUNCTION loky._executors()
RETURNS TABLE (executor_id integer, database name, role name, context text,
    max_workers integer, workers integer, idle integer, pending bigint,
    running bigint, succeeded bigint, failed bigint, cancelled bigint,
    timeout interval, state text, created timestamptz)
AS 'MODULE_PATHNAME', 'loky_executor_rows'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky._executors() IS 'rows of the view loky.executors';

CREATE FUNCTION loky._workers()
RETURNS TABLE (pid integer, executor_id integer, state text, future bigint,
    task text, tasks_done bigint, restarts bigint, memory_bytes bigint,
    started timestamptz, last_active timestamptz)
AS 'MODULE_PATHNAME', 'loky_worker_rows'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky._workers() IS 'rows of the view loky.workers';

CREATE FUNCTION loky._tasks()
RETURNS TABLE (future bigint, executor_id integer, label text, task text,
    state text, priority integer, submitted timestamptz, started timestamptz,
    finished timestamptz, worker integer, rows bigint, sqlstate text,
    message text, role name, submitter integer, attempts integer, key text,
    waiting_for text)
AS 'MODULE_PATHNAME', 'loky_task_rows'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky._tasks() IS 'rows of the view loky.tasks';

CREATE FUNCTION loky.report_progress(done bigint, total bigint DEFAULT NULL,
    message text DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'loky_report_progress'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.report_progress(bigint, bigint, text) IS
'shows in loky.progress how far the task, or item, that calls it has come';

CREATE FUNCTION loky._progress()
RETURNS TABLE (pid integer, executor_id integer, task text, total bigint,
    done bigint, failed bigint, elapsed interval, eta interval, bar text)
AS 'MODULE_PATHNAME', 'loky_progress_rows'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky._progress() IS 'rows of the view loky.progress';

CREATE FUNCTION loky._stats()
RETURNS TABLE (executor_id integer, task text, calls bigint, failures bigint,
    total_exec_time double precision, mean_exec_time double precision,
    max_exec_time double precision, mean_wait_time double precision,
    rows bigint, stats_since timestamptz)
AS 'MODULE_PATHNAME', 'loky_stats_rows'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky._stats() IS 'rows of the view loky.stats';

CREATE FUNCTION loky.stats_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'loky_stats_reset_sql'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.stats_reset() IS
'starts loky.stats and the counters of loky.executors anew, for this database and the roles whose rights one has';

CREATE FUNCTION loky.trace()
RETURNS jsonb
AS 'MODULE_PATHNAME', 'loky_trace'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.trace() IS
'returns the most recent runs, and what runs now, as Chrome trace events, for Perfetto';

CREATE FUNCTION loky.timeline(width integer DEFAULT 80)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'loky_timeline'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.timeline(integer) IS
'draws what each worker has done lately as a line of characters';

CREATE FUNCTION loky.timeline_svg()
RETURNS text
AS 'MODULE_PATHNAME', 'loky_timeline_svg'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky.timeline_svg() IS
'draws what the workers have done lately as an SVG picture';

CREATE FUNCTION loky._memory_used()
RETURNS bigint
AS 'MODULE_PATHNAME', 'loky_memory_used'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION loky._memory_used() IS
'bytes of loky.shared_memory that are in use';

CREATE VIEW loky.executors AS SELECT * FROM loky._executors();
COMMENT ON VIEW loky.executors IS
'executors, their sizes and what they have done';

CREATE VIEW loky.workers AS SELECT * FROM loky._workers();
COMMENT ON VIEW loky.workers IS 'worker processes and what they run';
COMMENT ON COLUMN loky.workers.task IS
'text of what it runs at present; null where that is of another database';
COMMENT ON COLUMN loky.workers.restarts IS
'workers of this executor that died at work, or were replaced for their memory or the number of their tasks';

CREATE VIEW loky.tasks AS SELECT * FROM loky._tasks();
COMMENT ON VIEW loky.tasks IS
'futures of this database, finished ones as long as they are kept';

CREATE VIEW loky.progress AS SELECT * FROM loky._progress();
COMMENT ON VIEW loky.progress IS
'maps and backfills that run, and tasks that call loky.report_progress()';

CREATE VIEW loky.stats AS SELECT * FROM loky._stats();
COMMENT ON VIEW loky.stats IS
'what each task has cost since the server''s start or loky.stats_reset(), times in milliseconds';
COMMENT ON COLUMN loky.stats.calls IS
'attempts at the task, and at items of maps of it, however they ended';
COMMENT ON COLUMN loky.stats.rows IS
'rows that were returned, or changed where none are returned';

GRANT SELECT ON loky.executors, loky.workers, loky.tasks, loky.progress,
    loky.stats TO PUBLIC;
