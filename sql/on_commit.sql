-- Tasks that are queued when their submitter commits, and dropped if it does not.

SELECT loky.get_reusable_executor(1, settings => '{"my.test": "on_commit"}') > 0 AS ok;
CREATE TABLE t.base (i int);
CREATE TABLE t.kept (n int GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION t.keep(what text) RETURNS bigint LANGUAGE sql
AS $$INSERT INTO t.kept (what) VALUES (what); SELECT count(*) FROM t.base$$;
CREATE FUNCTION t.kept() RETURNS text LANGUAGE sql
AS $$SELECT string_agg(what, ' ' ORDER BY n) FROM t.kept$$;

-- It sees what the transaction has written, as it runs after the commit.
BEGIN;
INSERT INTO t.base VALUES (1), (2);
SELECT loky.submit_task('t.keep', ROW('a'), on_commit => true) AS a,
       loky.submit_task('t.keep', ROW('b'), on_commit => true) AS b \gset
-- others pass, and know of it
SELECT * FROM loky.result(loky.submit('t.id', 1));
SELECT state, waiting_for FROM loky.tasks WHERE future IN (:a, :b);
SELECT loky.state(:a), loky.done(:a);
SELECT done, state FROM loky.wait(ARRAY[:a], '0');
COMMIT;
SELECT loky.result(:a), loky.result(:b);
SELECT t.kept();
-- outside of a transaction block the statement's own end is the commit
SELECT loky.submit_task('t.keep', ROW('c'), on_commit => true) AS a \gset
SELECT loky.result(:a);

-- Nobody waits for the own commit, not behind others either.
BEGIN;
SELECT loky.submit_task('t.keep', ROW('d'), on_commit => true) AS a \gset
SELECT loky.submit_task('t.keep', ROW('e'), after => ARRAY[:a]) AS b \gset
SELECT loky.submit_task('t.keep', ROW('f'), after => ARRAY[:b]) AS c \gset
SELECT loky.add_done_callback(:a, 'SELECT t.keep(''g'' || 0 * $1)') AS d \gset
SELECT f, state, message, hint <> '' AS hinted FROM unnest(ARRAY[
    'SELECT * FROM loky.result(' || :a || ')', 'SELECT * FROM loky.result(' || :c || ')',
    'SELECT * FROM loky.exception(' || :b || ')', 'SELECT * FROM loky.result(' || :d || ')',
    'SELECT * FROM loky.wait(ARRAY[' || :c || '])']) WITH ORDINALITY u (q, f), t.error(q);
SELECT waiting_for FROM loky.tasks WHERE future IN (:a, :b, :c, :d) ORDER BY future;
COMMIT;
SELECT state FROM loky.wait(ARRAY[:a, :b, :c, :d]);
SELECT t.kept();

-- However many are between, some of them more than once, or gone.
SELECT loky.get_reusable_executor(1, settings => '{"my.test": "other"}') AS other \gset
SELECT loky.get_reusable_executor(1, settings => '{"my.test": "on_commit"}') > 0 AS ok;
BEGIN;
LOCK TABLE t.base;
SELECT loky.submit_task('SELECT 1', executor => :other, delay => '300 ms') AS gone \gset
SELECT loky.submit('SELECT count(*) FROM t.base') AS a, loky.submit_task('SELECT 1', on_commit => true) AS p \gset
SELECT array_agg(loky.submit_task('SELECT 1', after => ARRAY[:a, :gone])) AS many FROM generate_series(1, 100) \gset
SELECT loky.result(:gone);
SELECT loky.forget(:gone);
SELECT loky.submit_task('SELECT 2', after => :'many'::bigint[]) AS y,
       loky.submit_task('SELECT 3', after => :'many'::bigint[] || :p::bigint) AS z \gset
SELECT state FROM t.error(format('SELECT loky.wait(ARRAY[%s, %s])', :y, :z));
SELECT done, state FROM loky.wait(ARRAY[:y], '0');
COMMIT;
SELECT loky.result(:y), loky.result(:z);

-- An abort drops it, as if it had never been; what was to run after it fails.
BEGIN;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true) AS a \gset
SELECT loky.submit_task('t.keep', ROW('y'), after => ARRAY[:a]) AS b \gset
SELECT loky.add_done_callback(:a, 'SELECT t.keep(''h'' || 0 * $1)') AS c \gset
ROLLBACK;
SELECT state FROM t.error('SELECT loky.state(' || :a || ')');
SELECT sqlstate FROM loky.exception(:b);
SELECT sqlstate FROM loky.exception(loky.submit_task('t.keep', ROW('z'), after => ARRAY[:a]));
SELECT state FROM loky.wait(ARRAY[:c]);
SELECT count(*) FROM loky.tasks WHERE future = :a;
-- by an error too
BEGIN;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true) AS a \gset
SELECT 1 / 0;
COMMIT;
SELECT state FROM t.error('SELECT loky.state(' || :a || ')');
-- savepoints
BEGIN;
SELECT loky.submit_task('t.keep', ROW('i'), on_commit => true) AS a \gset
SAVEPOINT s;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true) AS b \gset
SAVEPOINT s2;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true) AS c \gset
RELEASE s2;
ROLLBACK TO s;
SELECT loky.submit_task('t.keep', ROW('j'), on_commit => true) AS d \gset
SAVEPOINT s3;
SELECT loky.submit_task('t.keep', ROW('k'), on_commit => true) AS e \gset
RELEASE s3;
COMMIT;
SELECT state FROM loky.wait(ARRAY[:a, :d, :e]);
SELECT (SELECT state FROM t.error('SELECT loky.state(' || :b || ')')), (SELECT state FROM t.error('SELECT loky.state(' || :c || ')'));
-- exception blocks
DO $$
BEGIN
    BEGIN
        PERFORM loky.submit_task('t.keep', ROW('x'), on_commit => true);
        RAISE EXCEPTION 'undone';
    EXCEPTION WHEN raise_exception THEN
        PERFORM loky.submit_task('t.keep', ROW('l'), on_commit => true);
    END;
END$$;
SELECT t.clean();
SELECT t.kept();
-- a commit that fails is an abort
BEGIN;
CREATE TABLE t.pledge_parent (i int PRIMARY KEY);
CREATE TABLE t.pledge_child (i int REFERENCES t.pledge_parent DEFERRABLE INITIALLY DEFERRED);
COMMIT;
BEGIN;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true) AS a \gset
INSERT INTO t.pledge_child VALUES (1);
COMMIT;
SELECT state FROM t.error('SELECT loky.state(' || :a || ')');
-- two phases have nobody to queue it
BEGIN;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true) AS a \gset
PREPARE TRANSACTION 'loky';
ROLLBACK;
SELECT state FROM t.error('SELECT loky.state(' || :a || ')');

-- In a procedure, each COMMIT queues what came before it.
DO $$
DECLARE
    f bigint;
BEGIN
    f := loky.submit_task('t.keep', ROW('m'), on_commit => true);
    COMMIT;
    PERFORM loky.result(f);
    f := loky.submit_task('t.keep', ROW('x'), on_commit => true);
    ROLLBACK;
END$$;
-- in a task it is the task's own end
CREATE FUNCTION t.submits(fails bool) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    f bigint := loky.submit_task('t.keep', ROW(CASE WHEN fails THEN 'x' ELSE 'n' END), on_commit => true);
BEGIN
    IF fails THEN
        RAISE EXCEPTION 'no';
    END IF;
    RETURN f;
END$$;
SELECT loky.result(loky.result(loky.submit('t.submits', false), NULL::bigint));
SELECT sqlstate FROM loky.exception(loky.submit('t.submits', true));
SELECT t.clean();
SELECT t.kept();

-- It can be cancelled before, and waits with all the rest after.
BEGIN;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true) AS a \gset
SELECT loky.submit_task('t.keep', ROW('o'), on_commit => true, delay => '100 ms', key => 'k', label => 'late') AS b \gset
SELECT loky.cancel(:a), loky.state(:a);
SELECT state FROM t.error('SELECT * FROM loky.result(' || :a || ')');
COMMIT;
SELECT loky.state(:a);
SELECT loky.result(:b);
SELECT started - submitted >= '100 ms' AS from_the_commit_on FROM loky.tasks WHERE future = :b;
-- one that fails before the commit, as what it is to run after has
BEGIN;
SELECT loky.submit_task('t.keep', ROW('x'), on_commit => true, after => ARRAY[loky.submit('t.bad', 1)]) AS a \gset
COMMIT;
SELECT sqlstate FROM loky.exception(:a);

-- A shutdown does not wait for it; at the commit it goes to a fresh executor.
BEGIN;
SELECT loky.submit_task('t.keep', ROW('p'), on_commit => true) AS a,
       executor_id AS old FROM loky.executors e WHERE executor_id::text = current_setting('loky.executor') \gset
SELECT loky.shutdown();
SELECT loky.state(:a);
COMMIT;
SELECT loky.result(:a);
SELECT executor_id > :old AS fresh FROM loky.tasks WHERE future = :a;
BEGIN;
SELECT loky.submit_task('SELECT current_setting(''my.test'')', on_commit => true) AS a \gset
SELECT loky.shutdown(kill_workers => true);
COMMIT;
SELECT loky.result(:a);
SELECT t.kept();

-- Two thousand in one transaction, and nothing left of them when it aborts.
SELECT loky._memory_used() AS before \gset
BEGIN;
SELECT count(loky.submit_task('t.keep', ROW(repeat('x', 300)), on_commit => true, label => 'thousands')) FROM generate_series(1, 2000);
SELECT count(*) FROM loky.tasks WHERE waiting_for = 'commit';
ROLLBACK;
SELECT count(*) FROM loky.tasks WHERE label = 'thousands';
SELECT loky._memory_used() <= :before AS free_again;
SELECT loky.shutdown();
DROP TABLE t.kept, t.base, t.pledge_child, t.pledge_parent;
