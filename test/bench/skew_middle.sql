-- skew_middle.sql - skew.sql with the heavy item as number 10000.

CREATE FUNCTION bench.place() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 10000';
\i :dir/skew.sql
