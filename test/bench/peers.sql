-- peers.sql - what several benchmarks use: time, items, and other ways to run things.

-- Seconds since then.
CREATE FUNCTION bench.since(start timestamptz) RETURNS double precision
LANGUAGE sql AS 'SELECT extract(epoch FROM clock_timestamp() - start)::double precision';

CREATE TABLE bench.items AS SELECT array_agg(i) AS items FROM generate_series(1, 1000000) AS i;

CREATE FUNCTION bench.items(n integer) RETURNS integer[]
LANGUAGE sql AS 'SELECT items[1:n] FROM bench.items';

-- Transactions a second of pgbench with this script, two clients, one second's warm
-- caches included.
CREATE TABLE bench.line (line text);

CREATE FUNCTION bench.pgbench(script text, clients integer DEFAULT 2)
RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    file text := current_setting('data_directory') || '/bench.sql';
BEGIN
    EXECUTE format('COPY (SELECT line FROM string_to_table(%L, E''\n'') AS line) TO %L WITH (FORMAT csv, QUOTE E''\x01'', DELIMITER E''\x02'')', script, file);
    DELETE FROM bench.line;
    EXECUTE format('COPY bench.line FROM PROGRAM %L',
        format('%s/pgbench -n -M prepared -c %s -j %s -T 2 -f %s -h %s -p %s -U %s %s',
               (SELECT setting FROM pg_config WHERE name = 'BINDIR'), clients, clients, file,
               split_part(current_setting('unix_socket_directories'), ',', 1),
               current_setting('port'), current_user, current_database()));
    RETURN (SELECT substring(line FROM 'tps = ([0-9.]+)')::double precision
            FROM bench.line WHERE line LIKE 'tps = %');
END $$;

-- About 20 microseconds of work.
CREATE FUNCTION bench_work(i integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    x integer := i;
BEGIN
    FOR j IN 1 .. 600 LOOP
        x := (x + j) % 1000;
    END LOOP;
    RETURN x;
END $$;

CREATE FUNCTION bench_work_volatile(i integer) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    x integer := i;
BEGIN
    FOR j IN 1 .. 600 LOOP
        x := (x + j) % 1000;
    END LOOP;
    RETURN x;
END $$;

-- Items a second of a map, and of the same in a single query.
CREATE FUNCTION bench.map(task text, n integer) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    items integer[] := bench.items(n);
    start timestamptz := clock_timestamp();
    done bigint;
BEGIN
    SELECT count(*) INTO done
    FROM (SELECT loky.map(task, items, NULL::integer)) AS mapped;
    IF done <> n THEN
        RAISE EXCEPTION '% of % items', done, n;
    END IF;
    RETURN n / bench.since(start);
END $$;

CREATE FUNCTION bench.alone(task text, n integer) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    items integer[] := bench.items(n);
    start timestamptz := clock_timestamp();
    done bigint;
BEGIN
    EXECUTE format('SELECT count(%I(x)) FROM unnest($1) AS x', task) INTO done USING items;
    RETURN n / bench.since(start);
END $$;
