-- Items that see what the caller sees.
CREATE TABLE t.account (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO t.account SELECT i, 100 FROM generate_series(1, 100) i;
CREATE FUNCTION t.held(x int) RETURNS bigint LANGUAGE sql STABLE
AS 'SELECT sum(v) FROM t.account WHERE id % 4 = x % 4';
SELECT loky.get_reusable_executor(2) > 0 AS ok;

-- In each function, and in all ways to run an item.
SELECT sum(r) FROM loky.map('t.held', ARRAY[0, 1, 2, 3], NULL::bigint, snapshot => true) r;
SELECT sum(r) FROM loky.flat_map('SELECT v FROM t.account WHERE id % 4 = $1', ARRAY[0, 1, 2, 3], NULL::bigint, snapshot => true) r;
SELECT sum(result), bool_and(ok) FROM loky.try_map('t.held', ARRAY[0, 1, 2, 3], NULL::bigint, snapshot => true);
SELECT sum(r) FROM loky.map('t.held', ARRAY[0, 1, 2, 3], NULL::bigint, snapshot => true, chunksize => 2) r;
SELECT current_setting('transaction_isolation') AS mine, r AS theirs
FROM loky.map($$SELECT current_setting('transaction_isolation') || $1$$, ARRAY[''], NULL::text, snapshot => true) r;

-- A caller of REPEATABLE READ whose snapshot is older than a change of others.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(v) FROM t.account;
SELECT * FROM loky.run('UPDATE t.account SET v = v + 1');
SELECT sum(v) FROM t.account;
SELECT sum(r) FROM loky.map('t.held', ARRAY[0, 1, 2, 3], NULL::bigint, snapshot => true) r;
SELECT sum(r) FROM loky.map('t.held', ARRAY[0, 1, 2, 3], NULL::bigint) r;
-- what has changed since cannot be written
SELECT ok, sqlstate FROM loky.try_map('UPDATE t.account SET v = 0 WHERE id = $1', ARRAY[1], snapshot => true, retries => 0);
COMMIT;
SELECT sum(r) FROM loky.map('t.held', ARRAY[0, 1, 2, 3], NULL::bigint, snapshot => true) r;

-- Within a map of that kind as well: the inner one sees the same.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(v) FROM t.account;
SELECT * FROM loky.run('UPDATE t.account SET v = v + 1');
SELECT r FROM loky.map($$SELECT sum(r) FROM loky.map('t.held', ARRAY[0, 1, 2, 3], NULL::bigint, snapshot => true, executor => loky.get_reusable_executor(1)) r WHERE $1 > 0$$, ARRAY[1], NULL::bigint, snapshot => true) r;
COMMIT;

-- A caller that has changed things itself: items do not see that, and whatever they
-- have looked at is right after the commit.
CREATE TABLE t.own (id int PRIMARY KEY, v text);
INSERT INTO t.own SELECT i, 'old' FROM generate_series(1, 1000) i;
BEGIN;
INSERT INTO t.own SELECT i, 'new' FROM generate_series(1001, 1100) i;
DELETE FROM t.own WHERE id <= 50;
DO $$BEGIN
    FOR i IN 1 .. 10 LOOP
        BEGIN
            INSERT INTO t.own VALUES (2000 + i, 'in a subtransaction');
            DELETE FROM t.own WHERE id = 100 + i;
            IF i % 3 = 0 THEN
                RAISE EXCEPTION 'undone';
            END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END$$;
SAVEPOINT open;
DELETE FROM t.own WHERE id BETWEEN 201 AND 210;
SELECT DISTINCT r FROM loky.map('SELECT count(*) FROM t.own WHERE $1 > 0', ARRAY[1, 2, 3], NULL::bigint, snapshot => true) r;
SELECT count(*) FROM t.own;
COMMIT;
SELECT count(*), count(*) FILTER (WHERE v = 'new'), count(*) FILTER (WHERE id > 2000) FROM t.own;

-- The same with more subtransactions than are listed for all to see.  Another
-- transaction ends after them, so that they are among those that a snapshot tells from
-- what comes later.
CREATE TABLE t.other (v int);
BEGIN;
DO $$BEGIN
    FOR i IN 1 .. 100 LOOP
        BEGIN
            INSERT INTO t.own VALUES (3000 + i, 'in one of many');
        EXCEPTION WHEN unique_violation THEN NULL;
        END;
    END LOOP;
    PERFORM loky.run('INSERT INTO t.other VALUES (1)');
    PERFORM loky.map('SELECT count(*) FROM t.own WHERE $1 > 0', ARRAY[1, 2, 3], NULL::bigint, snapshot => true);
END$$;
SELECT DISTINCT r FROM loky.map('SELECT count(*) FROM t.own WHERE $1 > 0', ARRAY[1, 2, 3], NULL::bigint, snapshot => true) r;
COMMIT;
SELECT count(*), count(*) FILTER (WHERE id > 3000) FROM t.own;

-- A cursor keeps its snapshot, whatever has happened since.
UPDATE t.account SET v = 100;
BEGIN;
DECLARE c CURSOR FOR SELECT loky.map('SELECT sum(v) FROM t.account WHERE $1 > 0', ARRAY(SELECT generate_series(1, 200000)), NULL::bigint, snapshot => true);
FETCH 1 FROM c;
SELECT * FROM loky.run('UPDATE t.account SET v = v + 1');
MOVE 199998 IN c;
FETCH ALL FROM c;
COMMIT;

-- SERIALIZABLE is refused, and a null is as good as false.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state, message, hint FROM t.error($$SELECT loky.map('SELECT $1', ARRAY[1], snapshot => true)$$);
SELECT * FROM loky.map('SELECT $1', ARRAY[1], NULL::int);
SELECT * FROM loky.map('SELECT $1', ARRAY[1], NULL::int, snapshot => NULL);
COMMIT;
SELECT t.clean();
RESET loky.executor;
