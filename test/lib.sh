# lib.sh - what test/run, test/demo and test/bench/run have in common; sourced.
#
# All that happens does so in one private directory: a copy of the tree, a copy
# of the server's installation, data directories, sockets, logs.  PostgreSQL
# finds its libraries and its share directory by the way from its own binary to
# them, so a copy with the same paths below another root is a whole server, and
# "make install DESTDIR=root" installs into it.  The system's own server is not
# touched, and no right to write there is needed.
#
# Everything but the installation of packages runs as a user without
# privileges: as root the user postgres (or nobody), else whoever calls.

set -u -o pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
me=loky							# before each message
tmp=							# the private directory
root=							# the server's copy, below it
child=							# the step that runs
dropin=							# see forbid_cluster
dropin_dir=
sudo=()							# see install_packages
aptlog=
pgc=							# these three: see require
pgsrc=
version=
bin=							# the copied server's programs
ending=							# see on_signal
as_user=()						# prefix that drops privileges
PG_CONFIG=${PG_CONFIG:-}
JOBS=${JOBS:-$(nproc 2>/dev/null || echo 2)}
KEEP=${KEEP:-}

note()
{
	printf '%s: %s\n' "$me" "$*"
}

fail()
{
	printf '%s: %s\n' "$me" "$*" >&2
	exit 1
}

# The caller's connection settings, locale and make variables are not ours.
clean_environment()
{
	local v

	for v in $(compgen -e); do
		case $v in
			PG_CONFIG | PG_TEST_*) ;;
			PG* | LC_* | LANGUAGE | MAKEFLAGS | MFLAGS | MAKELEVEL | \
				MAKEOVERRIDES | GNUMAKEFLAGS | DESTDIR | CDPATH) unset "$v" ;;
		esac
	done
	export LANG=C.UTF-8
	umask 022
}

#--------------------------------------------------------------------------
# What is needed
#--------------------------------------------------------------------------

# Print the pg_config to use: the one that was asked for, else the first in the
# path that knows its build files, else the newest server that Debian's
# packages have laid down.
find_pg_config()
{
	local c

	if [ -n "$PG_CONFIG" ]; then
		command -v "$PG_CONFIG"
		return
	fi
	for c in "$(command -v pg_config)" \
		$(ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -Vr); do
		if [ -n "$c" ] && [ -e "$("$c" --pgxs 2>/dev/null)" ]; then
			echo "$c"
			return
		fi
	done
	return 1
}

# Major version of the server that Debian's packages have laid down, or would;
# nothing where its lists are not there yet.
default_major()
{
	local n

	n=$(ls /usr/lib/postgresql 2>/dev/null | sort -n | tail -n 1)
	if [ -z "$n" ]; then
		n=$(apt-cache depends postgresql 2>/dev/null |
			sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)
	fi
	echo "$n"
}

need()
{
	missing+=("$1")
	packages+=("$2")
}

# Fill the arrays missing (what) and packages (Debian's name for it).
# look_for_parts [tap]
look_for_parts()
{
	local pgc major bindir pgxs

	missing=() packages=()
	if pgc=$(find_pg_config); then
		major=$("$pgc" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
		bindir=$("$pgc" --bindir)
		pgxs=$(dirname "$("$pgc" --pgxs)")/..
		if [ ! -e "$("$pgc" --includedir-server)/postgres.h" ] ||
			[ ! -e "$pgxs/makefiles/pgxs.mk" ]; then
			need "headers of PostgreSQL $major" "postgresql-server-dev-$major"
		fi
	elif [ -n "$PG_CONFIG" ]; then
		fail "there is no $PG_CONFIG"
	else
		pgc= pgxs=
		major=$(default_major)
		bindir=/usr/lib/postgresql/$major/bin
		need "headers of PostgreSQL" \
			"${major:+postgresql-server-dev-$major}"
	fi
	if [ ! -x "$bindir/postgres" ] || [ ! -x "$bindir/initdb" ] ||
		[ ! -x "$bindir/psql" ]; then
		need "server and psql of PostgreSQL" "postgresql${major:+-$major}"
	elif [ -n "$pgc" ] && [ ! -e "$("$pgc" --pkglibdir)/dblink.so" ]; then
		need "dblink and pg_stat_statements" "postgresql-$major"
	fi
	if [ -n "$pgxs" ] && [ "${1:-}" = tap ]; then
		if [ ! -x "$pgxs/test/regress/pg_regress" ] ||
			[ ! -x "$pgxs/test/isolation/pg_isolation_regress" ] ||
			[ ! -x "$pgxs/test/isolation/isolationtester" ] ||
			[ ! -e "$pgxs/test/perl/PostgreSQL/Test/Cluster.pm" ]; then
			need "pg_regress, isolationtester, PostgreSQL::Test" \
				"postgresql-server-dev-$major"
		fi
	fi
	command -v make >/dev/null || need make make
	command -v gcc >/dev/null || need "C compiler" gcc
	# Headers of other packages that the server's own headers ask for.
	if ! command -v gcc >/dev/null ||
		! echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1; then
		need "headers of the C library" libc6-dev
	elif [ -n "$pgc" ] && [ -e "$("$pgc" --includedir-server)/postgres.h" ] &&
		gcc -M -I "$("$pgc" --includedir-server)" "$top"/src/*.c 2>&1 \
			>/dev/null | grep -q 'gssapi.*\.h: No such'; then
		need "headers of GSSAPI" libkrb5-dev
	fi
	command -v cmp >/dev/null || need "diff and cmp" diffutils
	if [ "${1:-}" = tap ]; then
		command -v prove >/dev/null &&
			perl -MTest::More -MTime::HiRes -e1 2>/dev/null ||
			need "prove and Perl's own modules" perl
		perl -MIPC::Run -e1 2>/dev/null ||
			need "IPC::Run for Perl" libipc-run-perl
	fi
}

# Run apt-get as whoever may; its output only where it fails.
apt_run()
{
	local rc

	aptlog=$(mktemp)
	"${apt[@]}" -qq -o Dpkg::Use-Pty=0 "$@" </dev/null >"$aptlog" 2>&1
	rc=$?
	[ $rc -eq 0 ] || tail -n 20 "$aptlog" >&2
	rm -f "$aptlog"
	return $rc
}

# Tell Debian not to make and start a cluster with a server's package, by a file
# of ours that is there only for the while; and take it away again.
forbid_cluster()
{
	local dir=/etc/postgresql-common/createcluster.d

	[ ! -e "$dir/loky-test.conf" ] || return
	dropin=$dir/loky-test.conf
	[ -d "$dir" ] || dropin_dir=$dir
	"${sudo[@]}" mkdir -p "$dir"
	echo 'create_main_cluster = false' | "${sudo[@]}" tee "$dropin" >/dev/null
}

allow_cluster()
{
	[ -n "$dropin" ] || return
	"${sudo[@]}" rm -f "$dropin"
	[ -z "$dropin_dir" ] ||
		"${sudo[@]}" rmdir -p --ignore-fail-on-non-empty "$dropin_dir"
	dropin=
}

# Install Debian packages, as root or with a sudo that asks for nothing.
install_packages()
{
	local rc=1

	command -v apt-get >/dev/null || return 1
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
		sudo=(sudo -n)
	fi
	note "installing $*"
	trap 'allow_cluster; rm -f "$aptlog"; exit 130' INT TERM HUP
	apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get)
	if apt_run update; then
		forbid_cluster
		# In a session of its own: Ctrl-C takes effect once it is done, and
		# leaves no package half installed.
		apt=(setsid -w "${apt[@]}")
		apt_run install -y --no-install-recommends "$@"
		rc=$?
		allow_cluster
	fi
	trap - INT TERM HUP
	return $rc
}

# Make sure that everything is there; as often as one finding leads to another.
# require [tap]
require()
{
	local tried=" " p new

	while look_for_parts "$@"; [ ${#missing[@]} -gt 0 ]; do
		new=()
		for p in $(printf '%s\n' "${packages[@]}" | sort -u); do
			case $tried in *" $p "*) ;; *) new+=("$p") ;; esac
		done
		if [ ${#new[@]} -eq 0 ] || ! install_packages "${new[@]}"; then
			{
				echo "$me: missing, and could not be installed by this user:"
				printf '  %s\n' "${missing[@]}"
				echo "On Debian and Ubuntu:" \
					"apt-get install" $(printf '%s\n' "${packages[@]}" | sort -u)
				case " ${packages[*]} " in *" postgresql "*)
					echo "and postgresql-server-dev- of the same version." ;;
				esac
			} >&2
			exit 1
		fi
		tried+="${new[*]} "
		hash -r
	done
	pgc=$(find_pg_config)
	case $pgc in /*) ;; *) pgc=$PWD/$pgc ;; esac
	pgsrc=$(dirname "$("$pgc" --pgxs)")/..
	version=$("$pgc" --version)
}

# Extensions that some tests show loky beside: installed where that can be done;
# the tests leave out what is not there.
want_neighbours()
{
	local major bindir pkglibdir new=() p

	bindir=$("$pgc" --bindir)
	case $bindir in
		/usr/lib/postgresql/*/bin) ;;
		*) return ;;				# not Debian's packages
	esac
	pkglibdir=$("$pgc" --pkglibdir)
	major=${bindir#/usr/lib/postgresql/} major=${major%/bin}
	[ -e "$pkglibdir/plpython3.so" ] || new+=("postgresql-plpython3-$major")
	[ -e "$pkglibdir/pg_cron.so" ] || new+=("postgresql-$major-cron")
	# One by one: not every release has both.
	for p in "${new[@]}"; do
		install_packages "$p" 2>/dev/null || note "without $p"
	done
}

# Unpack pgbouncer into the private directory, where Debian's packages can be
# had, and name it in PGBOUNCER.  It is not installed, which would start it.
fetch_pgbouncer()
{
	local dir=$tmp/pgbouncer deps f

	if PGBOUNCER=$(PATH=$PATH:/usr/sbin command -v pgbouncer); then
		export PGBOUNCER
		return
	fi
	unset PGBOUNCER
	command -v apt-get >/dev/null || return 0
	deps=$(apt-cache depends pgbouncer 2>/dev/null |
		sed -n 's/^ *Depends: \(libevent[^ ]*\|libc-ares[^ ]*\)$/\1/p')
	"${as_user[@]}" mkdir -p "$dir"
	if ! step 120 log/pgbouncer.log env -C "$dir" apt-get -q download pgbouncer $deps; then
		note "without pgbouncer"
		return
	fi
	for f in "$dir"/*.deb; do
		step 60 log/pgbouncer.log dpkg -x "$f" "$dir"
	done
	export LD_LIBRARY_PATH=$(dirname "$(find "$dir" -name 'libevent-*.so*' | head -n 1)"):${LD_LIBRARY_PATH:-}
	PGBOUNCER=$dir/usr/sbin/pgbouncer
	if "$PGBOUNCER" --version >log/pgbouncer.log 2>&1; then
		export PGBOUNCER
	else
		unset PGBOUNCER
		note "without pgbouncer"
	fi
}

#--------------------------------------------------------------------------
# The private directory, and its end
#--------------------------------------------------------------------------

# Make the private directory and give it to the user without privileges.
make_private_directory()
{
	local base user

	trap 'on_signal 129' HUP
	trap 'on_signal 130' INT
	trap 'on_signal 143' TERM
	trap clean_up EXIT

	if [ "$(id -u)" -eq 0 ]; then
		user=postgres
		id "$user" >/dev/null 2>&1 || user=nobody
		as_user=(setpriv --reuid="$user" --regid="$(id -g "$user")"
			--init-groups)
	fi
	for base in "${TMPDIR:-/tmp}" /tmp; do
		# A socket's path has room for 107 bytes.
		[ ${#base} -le 40 ] || continue
		"${as_user[@]}" test -w "$base" -a -x "$base" && break
	done
	tmp=$(mktemp -d "$base/loky.XXXXXX") || fail "no private directory"
	tmp=$(cd "$tmp" && pwd -P)
	[ ${#as_user[@]} -eq 0 ] || chown "$user" "$tmp"
	cd "$tmp" || fail "cannot enter $tmp"
	"${as_user[@]}" mkdir build root home s log
	root=$tmp/root
	[ -z "$KEEP" ] || note "what it leaves is in $tmp"
	export HOME=$tmp/home TMPDIR=$tmp/s
}

# Run a command in the copy of the tree, as the user without privileges and in
# a process group of its own, and end it past its time.  "-" as the log is our
# own output.
# step SECONDS LOG COMMAND...
step()
{
	local limit=$1 log=$2 rc

	shift 2
	set -- timeout -k 20 "$limit" "${as_user[@]}" env -C "$tmp/build" "$@"
	if [ "$log" = - ]; then
		"$@" </dev/null &
	else
		"$@" </dev/null >"$log" 2>&1 &
	fi
	child=$!
	wait "$child"
	rc=$?
	child=
	return $rc
}

# Print the processes that live in the private directory: those that run a
# program there, our copy of the server above all, or work there.
our_processes()
{
	local p at

	for p in /proc/[0-9]*; do
		for at in exe cwd; do
			case $(readlink "$p/$at" 2>/dev/null) in
				"$tmp"/*) echo "${p#/proc/}"; break ;;
			esac
		done
	done
}

# End every server below the private directory, then whatever else was started.
stop_all()
{
	local f pid shm pids i

	# An immediate shutdown: the postmaster takes its children and its shared
	# memory with it.
	while read -r f; do
		pid=$(head -n 1 "$f" 2>/dev/null)
		case $(readlink "/proc/$pid/cwd" 2>/dev/null) in
			"$tmp"/*) kill -QUIT "$pid" 2>/dev/null ;;
		esac
	done < <(find "$tmp" -name postmaster.pid 2>/dev/null)

	for i in $(seq 100); do
		pids=$(our_processes)
		[ -n "$pids" ] || return 0
		[ "$i" -eq 50 ] && kill -TERM $pids 2>/dev/null
		sleep 0.1
	done

	# Deaf ones: then their shared memory is ours to remove.
	shm=$(for pid in $pids; do
		sed -n 's,.* \(/dev/shm/PostgreSQL\.[0-9]*\).*,\1,p' \
			"/proc/$pid/maps" 2>/dev/null
	done | sort -u)
	note "had to kill:" $pids
	kill -KILL $pids 2>/dev/null
	[ -z "$shm" ] || rm -f $shm
	while read -r f; do
		set -- $(sed -n 7p "$f" 2>/dev/null)
		[ -z "${2:-}" ] || ipcrm -m "$2" 2>/dev/null
	done < <(find "$tmp" -name postmaster.pid 2>/dev/null)
}

# A signal may come twice, as make passes on what the terminal has sent to all:
# the second one must not cut short the end that the first one began.
on_signal()
{
	[ -z "$ending" ] || return
	ending=1
	exit "$1"
}

# At exit, however it comes about.
clean_up()
{
	local rc=$?

	ending=1
	trap '' HUP INT TERM
	trap - EXIT
	if [ -n "$child" ]; then
		kill -TERM "$child" 2>/dev/null
		wait "$child" 2>/dev/null
	fi
	cd /
	if [ -n "$tmp" ]; then
		stop_all
		[ -n "$KEEP" ] || rm -rf "$tmp"
	fi
	exit $rc
}

#--------------------------------------------------------------------------
# Build and install
#--------------------------------------------------------------------------

# Copy the tree as it is now, less what a build leaves.
copy_tree()
{
	local f files=()

	for f in Makefile README.md loky.control src sql expected test doc; do
		[ ! -e "$top/$f" ] || files+=("$f")
	done
	for f in "$top"/loky--*.sql; do
		[ ! -e "$f" ] || files+=("${f##*/}")
	done
	tar -C "$top" --exclude='*.o' --exclude='*.so' --exclude='*.bc' -cf - \
		"${files[@]}" | "${as_user[@]}" tar -C "$tmp/build" -xf - ||
		fail "could not copy the tree"
}

# Copy the server's installation: programs as they are, since each looks for
# the rest from where it lies, and links for what they only read.
copy_server()
{
	local bindir pkglibdir sharedir d f

	bindir=$("$pgc" --bindir)
	pkglibdir=$("$pgc" --pkglibdir)
	sharedir=$("$pgc" --sharedir)
	bin=$root$bindir
	"${as_user[@]}" mkdir -p "$bin"
	for f in "$bindir"/{postgres,postmaster,initdb,psql,pgbench,pg_*} \
		"$bindir"/{create,drop}{db,user} "$bindir"/{vacuum,reindex,cluster}db; do
		[ ! -x "$f" ] || printf '%s\0' "$f"
	done | "${as_user[@]}" xargs -0 cp -t "$bin" || fail "could not copy $bindir"
	for d in "$pkglibdir" "$sharedir"; do
		"${as_user[@]}" mkdir -p "$root$d"
		"${as_user[@]}" cp -rsf "$d/." "$root$d/" || fail "could not copy $d"
	done
	# What an earlier installation has there must not be met.
	rm -f "$root$pkglibdir"/loky*.so \
		"$root$sharedir"/extension/loky{.control,--*.sql}
	export PATH=$bin:$PATH
}

# Build with the given make variables, and install into the copy.
# build_and_install VARIABLE=VALUE...
build_and_install()
{
	local make=(make -s -j "$JOBS" PG_CONFIG="$pgc" "$@")

	# One after the other: make would do both at the same time.
	step 60 log/build.log "${make[@]}" clean &&
		step 600 log/build.log "${make[@]}" all ||
		{ cat log/build.log >&2; fail "the build failed"; }
	# Warnings, where they are no errors.
	[ ! -s log/build.log ] || cat log/build.log
	step 60 log/install.log "${make[@]}" install DESTDIR="$root" ||
		{ cat log/install.log >&2; fail "the installation failed"; }
}

#--------------------------------------------------------------------------
# A server for the demo and the benchmarks
#--------------------------------------------------------------------------

# Start one with the settings read from standard input, and point psql at it.
start_server()
{
	export PGHOST=$tmp/s PGPORT=5432 PGUSER=postgres PGDATABASE=postgres

	step 120 log/initdb.log initdb -D "$tmp/data" -U postgres -A trust \
		-E UTF8 --locale=C.UTF-8 --no-sync ||
		{ cat log/initdb.log >&2; fail "initdb failed"; }
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$tmp/s'"
		echo "port = 5432"
		cat
	} | "${as_user[@]}" tee -a "$tmp/data/postgresql.conf" >/dev/null
	step 120 log/start.log pg_ctl -D "$tmp/data" -l "$tmp/log/server.log" -w start ||
		{ cat log/start.log log/server.log >&2; fail "no server"; }
}

# The last lines of its log, for a message.
show_server_log()
{
	echo "--- end of the server's log" >&2
	tail -n 30 log/server.log >&2
}

stop_server()
{
	step 120 log/stop.log pg_ctl -D "$tmp/data" -m fast -w stop ||
		{ cat log/stop.log >&2; fail "the server does not stop"; }
}
