# SQLite: several threads in one database, a whole SQL session, integrity afterwards.
gcc -O2 -w -o threads /work/sqlite.c -lsqlite3 -pthread && ./threads
sqlite3 s.db <<'SQL'
pragma journal_mode=wal;
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 30000)
insert into t select i, printf('%08x', i * 2654435761 % 4294967296), i / 7.0 from n;
create index tb on t(b);
select count(*), sum(a), round(sum(c), 3), min(b), max(b) from t;
select b, a from t where b between '10000000' and '10080000' order by b limit 20;
update t set c = c * 2 where a % 3 = 0;
delete from t where a % 7 = 0;
select count(*), round(total(c), 3) from t;
select substr(b, 1, 1) p, count(*), avg(length(b)) from t group by p order by p;
pragma integrity_check;
SQL
