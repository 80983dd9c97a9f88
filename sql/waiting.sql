-- Tasks that wait for more than a worker: others, a key, a time, a commit.

SELECT loky.get_reusable_executor(2, settings => '{"my.test": "waiting"}') > 0 AS ok;
CREATE TABLE t.done (n int GENERATED ALWAYS AS IDENTITY, what text, seen int);

-- What a task notes when it runs.
CREATE FUNCTION t.note(what text) RETURNS void LANGUAGE sql
AS $$INSERT INTO t.done (what) VALUES (what)$$;
CREATE FUNCTION t.done() RETURNS text LANGUAGE sql
AS $$SELECT string_agg(what, ' ' ORDER BY n) FROM t.done$$;
CREATE FUNCTION t.anew() RETURNS void LANGUAGE sql
AS $$TRUNCATE t.done; SELECT t.reset()$$;

--
-- after
--
-- a diamond: the last one runs once, when both in the middle are done
SELECT t.anew();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT loky.submit_task('t.note', ROW('left'), after => ARRAY[:a]) AS b,
       loky.submit_task('t.note', ROW('right'), after => ARRAY[:a, :a]) AS c \gset
SELECT loky.submit_task('t.note', ROW('end'), after => ARRAY[:b, :c]) AS d \gset
SELECT t.until('last_value = 1 FROM t.arrived');
-- they hold no worker: another task passes them
SELECT * FROM loky.result(loky.submit('t.id', 7));
SELECT state, waiting_for, attempts FROM loky.tasks WHERE future IN (:b, :c, :d) ORDER BY future;
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(ARRAY[:a, :b, :c, :d]);
SELECT count(*), max(what) FILTER (WHERE n = (SELECT max(n) FROM t.done)) AS last FROM t.done;
-- after what is done already
SELECT * FROM loky.result(loky.submit_task('t.id', ROW(1), after => ARRAY[:a, :d]));
-- a failure is passed on, and so is a cancellation; nothing of it runs
SELECT t.anew();
SELECT loky.submit_task('t.bad', ROW(1)) AS a \gset
SELECT loky.submit_task('t.note', ROW('x'), after => ARRAY[:a]) AS b \gset
SELECT loky.submit_task('t.note', ROW('y'), after => ARRAY[:b]) AS c \gset
SELECT state, message, hint <> '' AS hinted, context FROM t.error('SELECT * FROM loky.result(' || :c || ')');
SELECT state, sqlstate, attempts FROM loky.tasks WHERE future IN (:a, :b, :c) ORDER BY future;
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT loky.submit_task('t.note', ROW('x'), after => ARRAY[:a]) AS b \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.cancel(:a, true);
SELECT sqlstate FROM loky.exception(:b);
-- one that waits can be cancelled itself
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT loky.submit_task('t.note', ROW('x'), after => ARRAY[:a]) AS b \gset
SELECT loky.cancel(:b), loky.state(:b);
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(ARRAY[:a, :b]);
SELECT t.done() IS NULL AS nothing;
-- unknown ones and nulls are refused; nothing and a null array mean none
SELECT state, hint <> '' AS hinted FROM t.error('SELECT loky.submit_task(''t.id'', ROW(1), after => ''{1000000000000}'')');
SELECT state FROM t.error('SELECT loky.submit_task(''t.id'', ROW(1), after => ''{NULL}'')');
SELECT * FROM loky.result(loky.submit_task('t.id', ROW(1), after => '{}'));
-- thousands of edges: from many to one, and from one to many
SELECT t.anew();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT array_agg(loky.submit_task('SELECT 1', after => ARRAY[:a])) AS many FROM generate_series(1, 3000) \gset
SELECT loky.submit_task('t.note', ROW('all'), after => :'many') AS z \gset
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(ARRAY[:z]);
SELECT count(*) FROM loky.wait(:'many') WHERE state = 'succeeded';
SELECT t.done();
-- a chain of a thousand fails as a whole
SELECT loky.submit('t.bad', 1) AS a \gset
CREATE FUNCTION t.chain_of(first bigint, n int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        first := loky.submit_task('SELECT 1', after => ARRAY[first]);
    END LOOP;
    RETURN first;
END$$;
SELECT sqlstate FROM t.chain_of(:a, 1000) f, loky.exception(f);

--
-- key
--
SELECT t.anew();
SELECT loky.submit_task('t.pass', ROW(1), key => 'k') AS a \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT array_agg(loky.submit_task('t.note', ROW('k' || i), key => 'k')) AS ks FROM generate_series(1, 3) i \gset
SELECT DISTINCT state, waiting_for, key FROM loky.tasks WHERE future = ANY (:'ks');
-- another key, the same one in another executor, and none go past
SELECT * FROM loky.result(loky.submit_task('t.id', ROW(1), key => 'j'));
SELECT * FROM loky.result(loky.submit('t.id', 2));
SELECT loky.get_reusable_executor(1, settings => '{"my.test": "other"}') AS other \gset
SELECT loky.get_reusable_executor(2, settings => '{"my.test": "waiting"}') > 0 AS ok;
SELECT * FROM loky.result(loky.submit_task('t.id', ROW(3), key => 'k', executor => :other));
SELECT loky.cancel((:'ks'::bigint[])[2]);
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(:'ks');
SELECT t.done();
-- key_limit: two at a time, never three
SELECT loky.get_reusable_executor(4, settings => '{"my.test": "waiting"}') > 0 AS ok;
SELECT t.anew();
SELECT array_agg(loky.submit_task('t.pass', ROW(1), key => 'k', key_limit => 2)) AS ks FROM generate_series(1, 4) \gset
SELECT t.until('last_value = 2 FROM t.arrived');
SELECT state, waiting_for, count(*) FROM loky.tasks WHERE future = ANY (:'ks') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM loky.result(loky.submit('t.id', 5));
SELECT last_value FROM t.arrived;
SELECT setval('t.gate', 1);
SELECT state, count(*) FROM loky.wait(:'ks') GROUP BY 1;
-- a thousand keys, each in order
SELECT t.anew();
CREATE TABLE t.keyed (k int, i int, n bigint GENERATED ALWAYS AS IDENTITY);
SELECT array_agg(loky.submit_task('INSERT INTO t.keyed (k, i) VALUES ($1, $2)', ROW(k, i), key => k::text)) AS ks
FROM generate_series(1, 3) i, generate_series(1, 1000) k \gset
SELECT state, count(*) FROM loky.wait(:'ks') GROUP BY 1;
SELECT count(*), count(DISTINCT k) FROM t.keyed;
SELECT count(*) AS out_of_order FROM t.keyed a JOIN t.keyed b USING (k) WHERE a.i < b.i AND a.n > b.n;
SELECT state FROM t.error('SELECT loky.submit_task(''t.id'', ROW(1), key => ''k'', key_limit => 0)');

--
-- delay
--
SELECT t.anew();
SELECT loky.submit_task('t.note', ROW('later'), delay => '300 ms') AS a,
       loky.submit_task('t.note', ROW('never'), delay => '1 day') AS b \gset
SELECT waiting_for FROM loky.tasks WHERE future IN (:a, :b);
SELECT loky.submit('t.note', 'now'::text) AS c \gset
SELECT state FROM loky.wait(ARRAY[:c, :a]);
SELECT t.done();
SELECT started - submitted >= '300 ms' AS not_before FROM loky.tasks WHERE future = :a;
SELECT loky.cancel(:b), loky.state(:b);
SELECT state FROM t.error('SELECT loky.submit_task(''t.id'', ROW(1), delay => ''-1 s'')');
SELECT * FROM loky.result(loky.submit_task('t.id', ROW(1), delay => '0'));

--
-- priority
--
SELECT loky.get_reusable_executor(1, settings => '{"my.test": "waiting"}') > 0 AS ok;
SELECT t.anew();
SELECT loky.submit('t.pass', 1) AS a \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT array_agg(loky.submit_task('t.note', ROW(p || '.' || i), priority => p)) AS ps
FROM generate_series(1, 2) i, unnest(ARRAY[0, 5, -3]) p \gset
SELECT setval('t.gate', 1);
SELECT count(*) FROM loky.wait(:'ps');
SELECT t.done();

--
-- timeout
--
SELECT state, message, hint FROM t.error('SELECT * FROM loky.result(loky.submit_task(''SELECT pg_sleep(60)'', timeout => ''50 ms''))');
CREATE FUNCTION t.trap() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        PERFORM pg_sleep(60);
    EXCEPTION WHEN query_canceled THEN
        NULL;
    END;
    RETURN 1;
END$$;
SELECT state, message FROM t.error('SELECT * FROM loky.result(loky.submit_task(''t.trap'', timeout => ''50 ms''))');
SELECT * FROM loky.result(loky.submit_task('t.id', ROW(1), timeout => '1 min'));
SELECT state FROM t.error('SELECT loky.submit_task(''t.id'', ROW(1), timeout => ''0'')');

--
-- retries
--
SELECT loky.get_reusable_executor(2, settings => '{"my.test": "waiting"}') > 0 AS ok;
CREATE SEQUENCE t.tries;
-- fails with this error for so many times
CREATE FUNCTION t.flaky(n int, code text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v bigint := nextval('t.tries');
BEGIN
    PERFORM t.note('try');
    IF v <= n THEN
        RAISE EXCEPTION 'try %', v USING ERRCODE = code;
    END IF;
    RETURN v;
END$$;
CREATE FUNCTION t.attempt(n int, code text, retries int, retry_on text[] DEFAULT NULL)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f bigint;
    e record;
BEGIN
    PERFORM setval('t.tries', 1, false);
    f := loky.submit_task('t.flaky', ROW(n, code), retries => retries, retry_on => retry_on);
    e := loky.exception(f);
    RETURN format('%s %s after %s', loky.state(f), coalesce(e.message, ''),
                  (SELECT attempts FROM loky.tasks WHERE future = f));
END$$;
SELECT t.anew();
SELECT t.attempt(3, '40001', 3);
-- only what was committed is there
SELECT t.done();
SELECT t.attempt(3, '40P01', 2);
SELECT t.attempt(1, '22012', 5);
SELECT t.attempt(1, '22012', 5, '{22}');
SELECT t.attempt(1, '22012', 5, '{40001,22012}');
SELECT t.attempt(1, '40001', 5, '{22012}');
SELECT t.attempt(1, '40001', 5, '{}');
SELECT t.attempt(1, '40001', 0);
SELECT code, (SELECT state FROM t.error(format('SELECT loky.submit_task(''t.id'', ROW(1), retry_on => %L)', code)))
FROM unnest(ARRAY['{4000}', '{40001,x}', '{4o001}', '{NULL}', '{""}']) code;
SELECT state FROM t.error('SELECT loky.submit_task(''t.id'', ROW(1), retries => -1)');
-- a worker that ends
SELECT loky.submit_task('SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(10)', retries => 2) AS a \gset
SELECT sqlstate FROM loky.exception(:a);
SELECT attempts FROM loky.tasks WHERE future = :a;
-- what has committed anything is never run again
CREATE PROCEDURE t.commits_first() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM t.note('committed');
    COMMIT;
    RAISE EXCEPTION 'after it' USING ERRCODE = '40001';
END$$;
SELECT t.anew();
SELECT loky.submit_task('t.commits_first', retries => 3) AS a \gset
SELECT sqlstate, message FROM loky.exception(:a);
SELECT attempts FROM loky.tasks WHERE future = :a;
SELECT t.done();
-- a commit that fails is an attempt like others
CREATE FUNCTION t.late_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('t.tries') <= 2 THEN
        RAISE EXCEPTION 'late' USING ERRCODE = '40001';
    END IF;
    RETURN NULL;
END$$;
CREATE TABLE t.deferred (i int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t.deferred DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION t.late_again();
SELECT setval('t.tries', 1, false);
SELECT loky.submit_task('INSERT INTO t.deferred VALUES (1)', retries => 2) AS a \gset
SELECT * FROM loky.result(:a);
SELECT attempts FROM loky.tasks WHERE future = :a;
SELECT count(*) FROM t.deferred;
-- with its key: others go on meanwhile, and it comes back first
SELECT t.anew();
SELECT setval('t.tries', 1, false);
SELECT loky.submit_task('t.flaky', ROW(1, '40001'), retries => 1, key => 'r') AS a \gset
SELECT * FROM loky.result(:a);
SELECT t.anew();
SELECT setval('t.tries', 1, false);
SELECT loky.submit_task('t.flaky', ROW(1, '40001'), retries => 1, key => 'r') AS a,
       loky.submit_task('t.pass', ROW(1), key => 'r') AS b,
       loky.submit_task('t.note', ROW('last'), key => 'r') AS c \gset
SELECT t.until(format($$(attempts, waiting_for) = (1, 'key') FROM loky.tasks WHERE future = %s$$, :a));
SELECT waiting_for FROM loky.tasks WHERE future IN (:a, :b, :c) ORDER BY future;
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(ARRAY[:a, :b, :c]);
SELECT t.done();

--
-- discard
--
SELECT t.anew();
SELECT loky.submit_task('t.note', ROW('quiet'), discard => true) AS a \gset
SELECT loky.submit_task('t.bad', ROW(1), discard => true) AS b \gset
SELECT t.until('NOT EXISTS (SELECT FROM loky.tasks WHERE future IN (' || :a || ',' || :b || '))');
SELECT t.done();
SELECT state FROM t.error('SELECT * FROM loky.result(' || :a || ')');
SELECT loky.submit_task('t.pass', ROW(1), discard => true) AS a \gset
SELECT loky.submit_task('t.note', ROW('after'), after => ARRAY[:a]) AS b \gset
SELECT setval('t.gate', 1);
SELECT state FROM loky.wait(ARRAY[:b]);

--
-- label, executor, args
--
SELECT loky.submit_task('SELECT current_setting(''my.test'')', executor => :other, label => 'named') AS a \gset
SELECT * FROM loky.result(:a);
SELECT label, executor_id = :other AS there FROM loky.tasks WHERE future = :a;
SELECT state, message, hint <> '' AS hinted FROM t.error('SELECT loky.submit_task(''SELECT 1'', executor => 0)');
SELECT * FROM loky.result(loky.submit_task('SELECT $1 || $2', ROW('a', 5)));
-- times beyond all timestamps: without end, or refused
SELECT * FROM loky.result(loky.submit('SELECT 1'), NULL::int, '170000000 years');
SELECT * FROM loky.map('SELECT $1', ARRAY[1], NULL::int, timeout => '170000000 years', item_timeout => '170000000 years');
SELECT state FROM t.error($$SELECT loky.result(loky.submit('SELECT pg_sleep(60)'), timeout => '-170000000 years')$$);
SELECT loky.cancel(future, running => true) FROM loky.tasks WHERE task LIKE '%pg_sleep(60)%' AND state IN ('pending', 'running');
SELECT state, message, hint <> '' AS hinted FROM t.error($$SELECT loky.submit_task('SELECT 1', delay => '170000000 years')$$);
SELECT state, hint <> '' AS hinted FROM t.error($$SELECT loky.submit_task('SELECT 1', delay => '-170000000 years')$$);
SELECT state FROM t.error('SELECT loky.submit_task(''t.nope'', ROW(1))');
SELECT state FROM t.error('SELECT loky.submit_task(NULL)');
SELECT state FROM t.error('SELECT loky.submit_task(''SELECT 1'', priority => NULL)');

-- shutdown waits for what waits, but not for its time to come without it
SELECT t.anew();
SELECT loky.submit_task('t.note', ROW('delayed'), delay => '100 ms', key => 'k') AS a \gset
SELECT loky.submit_task('t.note', ROW('next'), after => ARRAY[:a]) AS b \gset
SELECT loky.shutdown();
SELECT loky.state(:a), loky.state(:b);
SELECT t.done();
SELECT loky.submit_task('t.note', ROW('x'), delay => '1 day') AS a,
       loky.submit_task('t.pass', ROW(1), key => 'k') AS b,
       loky.submit_task('t.note', ROW('x'), key => 'k') AS c \gset
SELECT loky.submit_task('t.note', ROW('x'), after => ARRAY[:c]) AS d \gset
SELECT t.until('last_value = 1 FROM t.arrived');
SELECT loky.shutdown(kill_workers => true);
SELECT state FROM loky.wait(ARRAY[:a, :c]);
SELECT DISTINCT state, sqlstate FROM loky.tasks WHERE future IN (:b, :d) ORDER BY 1, 2;
SELECT loky.forget(f) FROM unnest(ARRAY[:a, :b, :c, :d]) f;
SELECT loky.get_reusable_executor(1, settings => '{"my.test": "other"}') > 0 AS ok;
SELECT loky.shutdown();
DROP TABLE t.done, t.keyed, t.deferred;
