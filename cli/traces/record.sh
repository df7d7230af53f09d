#!/bin/bash
# Records postgres-ext4.iolog.gz: PostgreSQL on ext4 on a block device whose every request is logged.
#
#   PostgreSQL -> ext4 -> /dev/loopN -> nbdfuse -> nbdkit (memory disk, log filter)
#
# Needs root, loop devices, FUSE and these Debian 12 packages:
#   nbdkit libnbd-bin fuse3 e2fsprogs postgresql-15 python3
# Usage: record.sh OUT.iolog.gz      (about 50 seconds; drops the page cache of the whole machine)
# With KEEP_LOG=DIR set, the raw log, the phase marks and the log of the server are kept in DIR.
set -euo pipefail

out=$(realpath -m "${1:?usage: record.sh OUT.iolog.gz}")
here=$(dirname "$(realpath "$0")")
pg=/usr/lib/postgresql/15/bin
size=512M

# Everything happens in one scratch directory, taken down on the way out in reverse order.
work=$(mktemp -d)
chmod 755 "$work"
cd "$work"
mkdir fuse fs pgsock
chown postgres pgsock
loop=
cleanup() {
    set +e
    as_pg "$pg/pg_ctl" -D "$work/fs/data" -m immediate stop >/dev/null 2>&1
    mountpoint -q "$work/fs" && umount "$work/fs"
    [ -n "$loop" ] && losetup -d "$loop"
    mountpoint -q "$work/fuse" && fusermount3 -u "$work/fuse"
    [ -s "$work/nbdkit.pid" ] && kill "$(cat "$work/nbdkit.pid")"
    cd / && rm -rf "$work"
}
trap cleanup EXIT

as_pg() { runuser -u postgres -- "$@"; }
phase() { echo "$(date +%s.%6N) $*" >>"$work/phases"; echo "== $*"; }
drop_caches() { echo 3 >/proc/sys/vm/drop_caches; }
pg_start() { as_pg "$pg/pg_ctl" -D "$work/fs/data" -l "$work/pgsock/server.log" -w start >/dev/null; }
pg_stop() { as_pg "$pg/pg_ctl" -D "$work/fs/data" -m "$1" -w stop >/dev/null; }
sql() { as_pg "$pg/psql" -h "$work/pgsock" -qAtX -v ON_ERROR_STOP=1 "$@" postgres; }
# TPC-B-like transactions at a throttled 50 per second, the page cache dropped every five seconds.
transactions() {
    as_pg "$pg/pgbench" -h "$work/pgsock" -n -c 4 -j 2 -R 50 -T "$1" postgres &
    local bench=$!
    while sleep 5 && kill -0 $bench 2>/dev/null; do drop_caches; done
    wait $bench
}

# The disk. The loop device opens its backing file with O_DIRECT, so no cache hides requests.
nbdkit -P nbdkit.pid -U nbd.sock --filter=log memory $size logfile="$work/nbdkit.log"
nbdfuse -P nbdfuse.pid fuse/disk --unix "$work/nbd.sock" &
until [ -s nbdfuse.pid ]; do sleep 0.1; done
loop=$(losetup --find --show --direct-io=on fuse/disk)

phase "mkfs.ext4, mount -o discard"
mkfs.ext4 -q -U 00000000-0000-4000-8000-000000000001 "$loop"
mount -o discard "$loop" fs
install -d -o postgres -m 700 fs/data

phase "initdb (4 MiB WAL segments)"
as_pg "$pg/initdb" -D fs/data --wal-segsize=4 --locale=C.UTF-8 --auth=trust >/dev/null
# Small buffers and a small WAL limit, so that forty seconds see reads and several checkpoints.
cat >>fs/data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$work/pgsock'
shared_buffers = 4MB
min_wal_size = 8MB
max_wal_size = 12MB
CONF

phase "pgbench -i -s 1"
pg_start
as_pg "$pg/pgbench" -h "$work/pgsock" -i -q -s 1 postgres 2>/dev/null

phase "pgbench -c 4 -R 50 -T 20"
transactions 20

phase "immediate stop, crash recovery"
pg_stop immediate
drop_caches
pg_start

phase "pgbench -c 4 -R 50 -T 20"
transactions 20

phase "report table built and dropped, vacuum, checkpoint"
sql -c "create table report as select h.*, a.abalance from pgbench_history h join pgbench_accounts a using (aid)" \
    -c "create index on report (aid)"
sql -c "vacuum pgbench_accounts" -c "drop table report" -c "checkpoint"

phase "clean stop, fstrim, unmount"
pg_stop fast
fstrim fs
umount fs

# Hand the disk back, so that the log is complete, then convert it.
losetup -d "$loop"; loop=
fusermount3 -u fuse
kill "$(cat nbdkit.pid)"
while [ -e "/proc/$(cat nbdkit.pid)" ]; do sleep 0.1; done
: >nbdkit.pid
python3 "$here/log2iolog.py" nbdkit.log phases | gzip -9n >"$out"
if [ -n "${KEEP_LOG:-}" ]; then cp nbdkit.log phases pgsock/server.log "$KEEP_LOG/"; fi
