-- Every function with arguments that nobody would give: nulls, the least and the
-- greatest, empty, nested, wrong ones, alone and in pairs.  There may be an error, but
-- no internal one, and the server and the pool go on.

CREATE ROLE regress_loky_evil;
GRANT USAGE ON SCHEMA loky, t TO regress_loky_evil;
CREATE SCHEMA f AUTHORIZATION regress_loky_evil;
SET ROLE regress_loky_evil;
CREATE TABLE f.big AS SELECT i AS id, repeat('x', 50) AS text FROM generate_series(1, 300) i;
CREATE UNIQUE INDEX ON f.big (id);
CREATE TABLE f.empty (a numeric, b text);
CREATE VIEW f.view AS SELECT 1 AS a;
CREATE TYPE f.row AS (a int, b text, c int[]);
CREATE DOMAIN f.small AS int CHECK (VALUE < 5);
CREATE DOMAIN f.row_domain AS f.row CHECK ((VALUE).a < 5);
CREATE FUNCTION f.fun(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
CREATE PROCEDURE f.proc(x int) LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
SELECT loky.submit('SELECT 1') AS f \gset
SELECT ARRAY[:f, loky.submit('SELECT 1, ROW(2, ARRAY[ROW(3)])'), loky.submit('SELECT 1 / 0'), loky.submit('f.fun', 7)] AS done \gset
SELECT count(*) FROM loky.wait(:'done');
SELECT set_config('my.done', :'done', false) IS NOT NULL AS ok;

-- What to give for an argument of this name and type; the first is a good one.
CREATE FUNCTION f.values_for(name text, type text, function text) RETURNS text[] LANGUAGE sql AS $$
SELECT CASE
WHEN name = 'task' AND function = 'run' OR name = 'initializer' THEN ARRAY['''SELECT 1''', 'NULL', '''''', '''SELECT $1''', '''f.fun''', '''f.proc''', '''BEGIN''', '''SELECT 1 / 0''', '''loky.submit''', '''SELECT pg_terminate_backend(pg_backend_pid())''']
WHEN name = 'task' THEN ARRAY['''SELECT $1''', '''SELECT 1''', '''f.fun''', 'NULL', '''''', '''SELECT $1, $2, $3''', '''f.proc''', '''f.fun(int)''', '''f.fun(''', '''SELECT 1; SELECT 2''', '''BEGIN''', '''COMMIT''', '''CALL f.proc(1)''', '''SELECT 1 / 0''', '''count''', '''rank''', '''int4in''', '''loky.submit''', '''loky.map''', '''SELECT $2000''', '''SELECT $70000''', '''SELECT $2147483648''', '''(''', 'repeat(''(SELECT '', 100)', 'repeat(''a'', 1000) || ''()''', 'repeat(''a.'', 500) || ''b''', '''a.b.c.d.e''', '''"''', 'E''\x01''', '''SELECT''', '''SELECT 1 WHERE false''', '''VALUES (1, 2), (3, 4)''', '''DECLARE c CURSOR WITH HOLD FOR SELECT 1''', '''FETCH ALL c''', '''EXPLAIN SELECT 1''', '''SHOW ALL''', '''PREPARE TRANSACTION ''''x''''''', '''DISCARD ALL''', '''SELECT NULL::f.row_domain''', '''SELECT ROW(1, ROW(2, ARRAY[ROW(3)]))''', '''SELECT ''''{1, 2}''''::f.small[]''', '''COPY f.big TO STDOUT''']
WHEN name = 'reuse' THEN ARRAY['''auto''', 'NULL', '''''', '''TRUE''', '''x''']
WHEN name = 'context' THEN ARRAY['NULL', '''bgworker''', '''''', '''x''']
WHEN name = 'return_when' THEN ARRAY['''ALL_COMPLETED''', 'NULL', '''''', '''first_exception''']
WHEN name = 'key' AND type = 'name' THEN ARRAY['''id''', 'NULL', '''''', '''ctid''', '''text''', 'repeat(''x'', 100)::name']
WHEN name = 'future' AND function = 'forget' THEN ARRAY['loky.submit(''SELECT 1'')', 'NULL', '0', '-1', '9223372036854775807', '-9223372036854775808']
WHEN name = 'future' THEN ARRAY['(current_setting(''my.done'')::bigint[])[1]', '(current_setting(''my.done'')::bigint[])[2]', '(current_setting(''my.done'')::bigint[])[3]', 'NULL', '0', '-1', '9223372036854775807', '-9223372036854775808', '4294967296']
WHEN name = 'executor' THEN ARRAY['NULL', '0', '-1', '2147483647', '-2147483648']
WHEN name = 'max_workers' THEN ARRAY['2', 'NULL', '0', '-1', '2147483647', '-2147483648']
WHEN name = 'rel' THEN ARRAY['''f.big''', 'NULL', '''f.empty''', '''f.view''', '0', '4294967295::oid::regclass', '''f.row''', '''f.big_id_idx''', '''pg_class''', '''pg_authid''', '''loky.tasks''']
WHEN name = 'retries' THEN ARRAY['0', 'NULL', '-1', '1', '2147483647', '-2147483648']
WHEN name = 'delay' AND function = 'backfill' THEN ARRAY['NULL', '''0''', '''-1 s''', '''1 us''', '''178000000 years''', '''-178000000 years''']
WHEN type = 'interval' THEN ARRAY['''20 s''', 'NULL', '''0''', '''-1 s''', '''1 us''', '''178000000 years''', '''-178000000 years''', '''2147483647 days''', '''-2147483648 mons''']
WHEN type = 'text' THEN ARRAY['''x''', 'NULL', '''''', 'repeat(''x'', 100000)', 'E''\x01\n%s%n''', '''é€𝄞''']
WHEN name = 'width' THEN ARRAY['80', 'NULL', '0', '-1', '20', '2147483647', '-2147483648']
WHEN type = 'integer' THEN ARRAY['5', 'NULL', '0', '-1', '1', '2147483647', '-2147483648']
WHEN type = 'bigint' THEN ARRAY['5', 'NULL', '0', '-1', '9223372036854775807', '-9223372036854775808']
WHEN type = 'boolean' THEN ARRAY['false', 'true', 'NULL']
WHEN type = 'bigint[]' THEN ARRAY['current_setting(''my.done'')::bigint[]', 'NULL', '''{}''', '''{NULL}''', '''{-1, 0}''', '''{9223372036854775807}''', 'ARRAY[current_setting(''my.done'')::bigint[], current_setting(''my.done'')::bigint[]]', 'array_fill((current_setting(''my.done'')::bigint[])[1], ARRAY[50000])', '(''[5:8]='' || current_setting(''my.done''))::bigint[]']
WHEN type = 'text[]' THEN ARRAY['NULL', '''{}''', '''{NULL}''', '''{{40001, 40P01}}''', '''{4, "", zzzzzzz}''', '''{08, 40001, LK001}''', 'array_fill(''40001''::text, ARRAY[10000])']
WHEN type = 'jsonb' THEN ARRAY['NULL', '''{}''', '''[]''', '''null''', '1::text::jsonb', '''{"a": 1}''', '''{"work_mem": "1MB"}''', '''{"work_mem": null}''', '''{"work_mem": {"a": [1]}}''', '''{"": ""}''', '''{"int": "f.fun"}''', '''{"int": "no_such"}''', '''{"int[]": "array_length"}''', '''{"record": "to_jsonb"}''', '''[{"lo": "1", "hi": "10"}]''', '''[{"lo": 1, "hi": 1e400}]''', '''[{"lo": [1], "hi": null}]''', '''[[], {}, 1]''', 'jsonb_build_object(repeat(''k'', 100000), 1)', '(SELECT jsonb_object_agg(''my.a'' || i, i) FROM generate_series(1, 100) i)']
WHEN type = 'record' AND name = 'args' AND function IN ('run', 'submit_task') THEN ARRAY['ROW(1)', 'NULL', 'ROW()', 'ROW(NULL)', 'ROW(''x'')', 'ROW(1, 2, 3)', 'NULL::f.row', 'ROW(1, ''b'', ''{1}'')::f.row_domain', 'ROW(1, ''x'', NULL, ROW(1, ROW(2)))']
WHEN type = 'record' THEN ARRAY['NULL', 'ROW(1)', 'ROW()', 'ROW(NULL)', 'ROW(''x'')', 'ROW(1, ''x'', NULL, ROW(1, ROW(2)))', 'ROW(ARRAY[ROW(1, 2), ROW(3, 4)])', 'NULL::f.row', 'ROW(1, ''b'', ''{1}'')::f.row', 'ROW(1, ''b'', ''{1}'')::f.row_domain', 'NULL::f.row_domain', 'ROW(repeat(''y'', 500000))', 'ROW(''{1, 2}''::int[], ''[1, 3)''::int4range)']
WHEN type = 'anycompatiblearray' THEN ARRAY['ARRAY[1, 2, 3]', 'NULL::int[]', '''{}''::int[]', 'ARRAY[NULL]::int[]', '''[-5:-3]={1, 2, 3}''::int[]', 'ARRAY[[1, 2], [3, 4]]', 'ARRAY[ROW(1, 2), ROW(3, 4)]', 'ARRAY[ROW(1, 2), ROW(3, ''x'')]', 'ARRAY[ROW(1), NULL]', 'ARRAY[NULL, NULL]::record[]', 'ARRAY[ROW()]', 'ARRAY[ROW(1, ''b'', ''{1}'')::f.row, NULL]', 'ARRAY[ROW(1, ''b'', ''{1}'')::f.row_domain]', '''{1, 2}''::f.small[]', 'ARRAY[''a'', ''b'']', 'array_fill(1, ARRAY[100])', 'ARRAY[repeat(''z'', 500000)]', 'ARRAY[''[1, 2)''::int4range]', '''{abc}''::name[]', 'ARRAY[ROW(ARRAY[ROW(1, ROW(2))])]', 'array_fill(NULL::int, ARRAY[2, 2, 2, 2, 2, 2])']
WHEN type = 'anyelement' THEN ARRAY['NULL::text', 'NULL::int', 'NULL::f.small', 'NULL::f.row', 'NULL::f.row_domain', 'NULL::jsonb', 'NULL::json', 'NULL::int[]', 'NULL::record', 'NULL::f.row[]', '''x''::text', 'NULL::"char"', 'NULL::name', 'NULL::int4range', 'NULL::f.big', 'NULL::varchar(3)', 'NULL::bool', 'NULL::tid']
WHEN type = '"any"' THEN ARRAY['1', 'NULL', '''x''', '1, 2, 3', 'ROW(1, 2)', 'ARRAY[ROW(1)]', 'NULL::record', 'VARIADIC ARRAY[1, 2]', 'VARIADIC NULL::int[]', 'VARIADIC ARRAY[[1, 2], [3, 4]]', 'VARIADIC ARRAY[]::text[]', 'VARIADIC 5', 'VARIADIC array_fill(1, ARRAY[5000])', 'NULL::f.row_domain', 'NULL::f.small']
END$$;

-- Functions and their arguments.
CREATE TABLE f.arguments AS
SELECT p.oid::regprocedure AS function, p.proname AS name, a.n::int, p.proargnames[a.n] AS argument, format_type(a.type, -1) AS type,
    f.values_for(p.proargnames[a.n], format_type(a.type, -1), p.proname) AS given
FROM pg_proc p LEFT JOIN LATERAL unnest(p.proargtypes::oid[]) WITH ORDINALITY a (type, n) ON true
WHERE p.pronamespace = 'loky'::regnamespace;
SELECT function, argument, type AS without_values FROM f.arguments WHERE n IS NOT NULL AND given IS NULL;

-- Call the function with these arguments, in the default executor whatever the last
-- call has made; the state of the error, '00000' without.
CREATE FUNCTION f.call(name text, given text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('loky.executor', '', false);
    EXECUTE format('SELECT count(*) FROM (SELECT loky.%s(%s)) x', name, array_to_string(given, ', '));
    RETURN '00000';
EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
    RETURN SQLSTATE;
END$$;
-- One argument after the other with each value, the others good; then pairs, each
-- with some extreme values.
CREATE FUNCTION f.try(of regprocedure) RETURNS TABLE (given text[], state text) LANGUAGE plpgsql AS $$
DECLARE
    good text[];
    proname text;
    a record;
    b record;
BEGIN
    SELECT min(x.name), coalesce(array_agg(x.given[1] ORDER BY x.n) FILTER (WHERE x.n IS NOT NULL), '{}')
    INTO proname, good FROM f.arguments x WHERE x.function = of;
    given := good;
    state := f.call(proname, given);
    RETURN NEXT;
    FOR a IN SELECT x.n, v FROM f.arguments x, unnest(x.given) WITH ORDINALITY u (v, i) WHERE x.function = of AND i > 1 ORDER BY x.n, i LOOP
        given := good[:a.n - 1] || a.v || good[a.n + 1:];
        state := f.call(proname, given);
        RETURN NEXT;
    END LOOP;
    FOR a IN SELECT x.n, v FROM f.arguments x, unnest(x.given) WITH ORDINALITY u (v, i) WHERE x.function = of AND i BETWEEN 2 AND 4 ORDER BY x.n, i LOOP
        FOR b IN SELECT x.n, v FROM f.arguments x, unnest(x.given) WITH ORDINALITY u (v, i) WHERE x.function = of AND x.n > a.n AND i IN (2, 4, cardinality(x.given)) ORDER BY x.n, i LOOP
            given := good[:a.n - 1] || a.v || good[a.n + 1:b.n - 1] || b.v || good[b.n + 1:];
            state := f.call(proname, given);
            RETURN NEXT;
        END LOOP;
    END LOOP;
    -- nothing is left that a shutdown would wait for
    PERFORM loky.cancel(t.future, true) FROM loky.tasks t WHERE t.state IN ('pending', 'running') AND t.role = current_user;
END$$;
SET client_min_messages = error;
SET statement_timeout = '50 s';
CREATE TABLE f.calls AS SELECT p AS function, c.given, c.state
FROM (SELECT DISTINCT function AS p FROM f.arguments) x, f.try(p) c WHERE p::text !~ 'stats_reset';
RESET statement_timeout;
RESET client_min_messages;
SELECT count(*) > 3000 AS many, count(*) FILTER (WHERE state = '00000') > 500 AS good, count(*) FILTER (WHERE state <> '00000') > 1000 AS refused,
    count(DISTINCT function) = (SELECT count(*) FROM pg_proc WHERE pronamespace = 'loky'::regnamespace) - 1 AS all_functions FROM f.calls;
SELECT function, state, min(given) AS given FROM f.calls WHERE state ~ '^(XX|57P|58|26|P0004)' GROUP BY 1, 2 ORDER BY 1, 2;
-- each function works with good arguments
SELECT function, given, state FROM (SELECT DISTINCT ON (function) * FROM f.calls ORDER BY function, ctid) x WHERE state <> '00000' ORDER BY 1;
RESET loky.executor;
SELECT count(loky.cancel(future, true)) >= 0 AS cancelled FROM loky.tasks WHERE state IN ('pending', 'running') AND role = current_user;
SELECT sum(r) FROM loky.map('f.fun', ARRAY[1, 2, 3], NULL::int) r;

-- What begins or ends the transaction that a chunk's items share is an error of the
-- chunk, not the end of its worker.
SET client_min_messages = error;
CREATE TEMP TABLE states AS SELECT task, n, ok, sqlstate
FROM unnest(ARRAY['BEGIN', 'START TRANSACTION', 'COMMIT', 'ROLLBACK', 'ROLLBACK AND CHAIN', 'COMMIT AND CHAIN', 'SAVEPOINT a', 'ABORT', 'END']) task,
    unnest(ARRAY[1, 3, 5]) n, loky.try_map(task, ARRAY[1, 2, 3, 4, 5], chunksize => n, item_timeout => '10 s', retries => 2) m;
RESET client_min_messages;
SELECT task, n AS chunksize, string_agg(coalesce(sqlstate, 'ok'), ' ') AS states FROM states GROUP BY task, n ORDER BY task, n;
RESET ROLE;
SELECT t.clean();
SET client_min_messages = warning;
DROP OWNED BY regress_loky_evil CASCADE;
RESET client_min_messages;
DROP ROLE regress_loky_evil;
