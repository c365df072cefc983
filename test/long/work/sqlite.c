/* Four writers and four readers in one file; every transaction keeps the sum. */
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

static _Atomic int errors;

static sqlite3 *open_db(void)
{
	sqlite3 *db;

	if (sqlite3_open("bank.db", &db) != SQLITE_OK)
		exit(1);
	sqlite3_busy_timeout(db, 600000);
	sqlite3_exec(db, "pragma synchronous=off", NULL, NULL, NULL);
	return db;
}

static void *writer(void *arg)
{
	sqlite3 *db = open_db();
	unsigned seed = (unsigned)(size_t)arg;

	for (int i = 0; i < 100; i++) {
		char sql[256];
		int a = rand_r(&seed) % 100, b = rand_r(&seed) % 100;

		snprintf(sql, sizeof(sql),
		    "begin immediate;"
		    "update t set v=v-1 where id=%d;update t set v=v+1 where id=%d;"
		    "insert into log values(%d,%d);commit", a, b, a, b);
		if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
			errors++;
	}
	sqlite3_close(db);
	return NULL;
}

static int sum(void *arg, int n, char **v, char **names)
{
	(void)n;
	(void)names;
	*(int *)arg = atoi(v[0]);
	return 0;
}

static void *reader(void *arg)
{
	sqlite3 *db = open_db();

	(void)arg;
	for (int i = 0; i < 100; i++) {
		int s = 0;

		if (sqlite3_exec(db, "select sum(v) from t", sum, &s, NULL) != SQLITE_OK ||
		    s != 100000)
			errors++;
	}
	sqlite3_close(db);
	return NULL;
}

int main(void)
{
	sqlite3 *db = open_db();
	pthread_t t[8];
	int n = 0;

	sqlite3_exec(db, "pragma journal_mode=wal; create table t(id integer primary key, v int);"
			 "create table log(a int, b int);", NULL, NULL, NULL);
	for (int i = 0; i < 100; i++) {
		char sql[64];

		snprintf(sql, sizeof(sql), "insert into t values(%d,1000)", i);
		sqlite3_exec(db, sql, NULL, NULL, NULL);
	}
	for (size_t i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, i < 4 ? writer : reader, (void *)i);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	sqlite3_exec(db, "select count(*) from log", sum, &n, NULL);
	printf("%d transactions, %d errors\n", n, errors);
	sqlite3_exec(db, "select sum(v) from t", sum, &n, NULL);
	printf("sum %d\n", n);
	sqlite3_close(db);
	return 0;
}
