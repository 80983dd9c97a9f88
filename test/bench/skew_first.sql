-- skew_first.sql - skew.sql with the heavy item as number 1.

CREATE FUNCTION bench.place() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
\i :dir/skew.sql
