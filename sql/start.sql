-- A worker that cannot start: what waits for it fails with the cause after a
-- few attempts, and nobody else notices.
\set VERBOSITY sqlstate
CREATE ROLE regress_loky_start SUPERUSER;
GRANT USAGE ON SCHEMA loky TO regress_loky_start;
SET ROLE regress_loky_start;
SELECT loky.get_reusable_executor(2, settings => '{"log_duration": "on"}', timeout => '0') IS NOT NULL AS made;
SELECT * FROM loky.result(loky.submit('SELECT 1'));
RESET ROLE;

-- the role may not set that any more, so no new worker gets through its start
ALTER ROLE regress_loky_start NOSUPERUSER;
SET ROLE regress_loky_start;
SELECT loky.submit('SELECT 2') AS f \gset
SELECT * FROM loky.result(:f);
SELECT sqlstate, detail FROM loky.exception(:f);
SELECT * FROM loky.map('abs', ARRAY[-1]);
RESET ROLE;
RESET loky.executor;
SELECT * FROM loky.result(loky.submit('SELECT 3'));
SELECT pending, running, failed FROM loky.executors WHERE role = 'regress_loky_start';
REVOKE USAGE ON SCHEMA loky FROM regress_loky_start;
DROP ROLE regress_loky_start;
