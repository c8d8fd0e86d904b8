// Runs a few seconds of mixed SQL in memory: an invented shop with customers, products and orders.
//
//     sqlite [ROUNDS]
//
// A round fills the tables, asks of them what a shop would, changes them, and empties them. Each statement's checksum
// is added up, so that the last line shows whether two runs have computed the same.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "sqlite3.h"

enum { CUSTOMERS = 2000, PRODUCTS = 500, ORDERS = 30000, DEFAULT_ROUNDS = 24 };

static sqlite3 *database;
static uint64_t checksum;

static void fail(const char *statement) {
    fprintf(stderr, "sqlite: %s\n  in: %s\n", sqlite3_errmsg(database), statement);
    exit(1);
}

static void execute(const char *statement) {
    if (sqlite3_exec(database, statement, NULL, NULL, NULL) != SQLITE_OK) fail(statement);
}

static sqlite3_stmt *prepare(const char *statement) {
    sqlite3_stmt *prepared;
    if (sqlite3_prepare_v2(database, statement, -1, &prepared, NULL) != SQLITE_OK) fail(statement);
    return prepared;
}

// Runs a query to its end and adds every value of its result to the checksum.
static void query(const char *statement) {
    sqlite3_stmt *prepared = prepare(statement);
    int status;
    while ((status = sqlite3_step(prepared)) == SQLITE_ROW) {
        for (int column = 0; column < sqlite3_column_count(prepared); column++) {
            const unsigned char *text = sqlite3_column_text(prepared, column);
            for (; text && *text; text++) checksum = checksum * 31 + *text;
        }
    }
    if (status != SQLITE_DONE) fail(statement);
    sqlite3_finalize(prepared);
}

static uint32_t random_below(uint32_t limit) {
    static uint64_t state = 42;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

// One call a statement: the order in which arguments are evaluated differs between compilers.
static const char *random_syllable(void) {
    static const char *const syllables[] = {"an", "bel", "cor", "dra", "el", "fin", "gor", "hal", "is", "jun"};
    return syllables[random_below(10)];
}

static void insert_once(sqlite3_stmt *prepared) {
    if (sqlite3_step(prepared) != SQLITE_DONE) fail(sqlite3_sql(prepared));
    sqlite3_reset(prepared);
}

static void fill(void) {
    char name[64];
    execute("BEGIN");
    sqlite3_stmt *customer = prepare("INSERT INTO customer (id, name, city) VALUES (?, ?, ?)");
    for (int id = 1; id <= CUSTOMERS; id++) {
        const char *first = random_syllable(), *second = random_syllable(), *third = random_syllable();
        snprintf(name, sizeof name, "%s%s%s %d", first, second, third, id);
        sqlite3_bind_int(customer, 1, id);
        sqlite3_bind_text(customer, 2, name, -1, SQLITE_TRANSIENT);
        sqlite3_bind_int(customer, 3, (int)random_below(40));
        insert_once(customer);
    }
    sqlite3_finalize(customer);
    sqlite3_stmt *product = prepare("INSERT INTO product (id, title, price) VALUES (?, ?, ?)");
    for (int id = 1; id <= PRODUCTS; id++) {
        const char *first = random_syllable(), *second = random_syllable();
        snprintf(name, sizeof name, "%s-%s-%d", first, second, id);
        sqlite3_bind_int(product, 1, id);
        sqlite3_bind_text(product, 2, name, -1, SQLITE_TRANSIENT);
        sqlite3_bind_double(product, 3, 1 + random_below(10000) / 100.0);
        insert_once(product);
    }
    sqlite3_finalize(product);
    execute("COMMIT");
    // Many small transactions besides the one large one.
    sqlite3_stmt *order = prepare("INSERT INTO purchase (customer, product, amount, day) VALUES (?, ?, ?, ?)");
    for (int row = 0; row < ORDERS; row++) {
        if (row % 100 == 0) execute("BEGIN");
        sqlite3_bind_int(order, 1, 1 + (int)random_below(CUSTOMERS));
        sqlite3_bind_int(order, 2, 1 + (int)random_below(PRODUCTS));
        sqlite3_bind_int(order, 3, 1 + (int)random_below(9));
        sqlite3_bind_int(order, 4, (int)random_below(365));
        insert_once(order);
        if (row % 100 == 99) execute("COMMIT");
    }
    sqlite3_finalize(order);
}

static void ask(void) {
    query("SELECT c.city, count(*), sum(p.amount * d.price) FROM purchase p JOIN customer c ON c.id = p.customer "
          "JOIN product d ON d.id = p.product GROUP BY c.city ORDER BY 3 DESC");
    query("SELECT c.name, (SELECT max(p.day) FROM purchase p WHERE p.customer = c.id) FROM customer c ORDER BY c.name");
    query("SELECT count(*) FROM customer WHERE name LIKE '%bel%' OR name LIKE 'cor%'");
    query("SELECT d.title, count(*) FROM product d JOIN purchase p ON p.product = d.id WHERE d.title LIKE '%or-%' "
          "GROUP BY d.id HAVING count(*) > 50 ORDER BY 2 DESC, 1");
    query("SELECT day, sum(amount) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW), "
          "rank() OVER (ORDER BY amount DESC) FROM (SELECT day, sum(amount) AS amount FROM purchase GROUP BY day)");
    query("SELECT customer, day, row_number() OVER (PARTITION BY customer ORDER BY day, rowid) FROM purchase "
          "WHERE customer < 300");
    query("WITH RECURSIVE day(number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM day WHERE number < 364) "
          "SELECT number, (SELECT count(*) FROM purchase p WHERE p.day = number) FROM day");
    query("SELECT count(DISTINCT customer), count(DISTINCT product), avg(amount) FROM purchase");
    query("SELECT json_group_array(json_object('id', id, 'price', price)) FROM product WHERE price > 50");
}

static void change(void) {
    execute("UPDATE product SET price = round(price * 1.05, 2) WHERE id % 3 = 0");
    execute("UPDATE purchase SET amount = amount + 1 WHERE day BETWEEN 100 AND 130");
    execute("DELETE FROM purchase WHERE day > 300 AND customer IN (SELECT id FROM customer WHERE city < 10)");
    query("SELECT count(*), sum(amount) FROM purchase");
    execute("BEGIN; DELETE FROM purchase WHERE product % 2 = 0; ROLLBACK");
    query("SELECT group_concat(upper(substr(name, 1, 3)), '') FROM customer WHERE city = 7");
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : DEFAULT_ROUNDS;
    if (sqlite3_open(":memory:", &database) != SQLITE_OK) fail("open");
    execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city INTEGER NOT NULL);"
            "CREATE TABLE product (id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, price REAL NOT NULL);"
            "CREATE TABLE purchase (customer INTEGER NOT NULL, product INTEGER NOT NULL, amount INTEGER NOT NULL,"
            "                       day INTEGER NOT NULL);"
            "CREATE INDEX purchase_customer ON purchase (customer);"
            "CREATE INDEX purchase_product ON purchase (product);"
            "CREATE INDEX purchase_day ON purchase (day, amount);");
    for (int round = 0; round < rounds; round++) {
        fill();
        ask();
        change();
        execute("DELETE FROM purchase; DELETE FROM product; DELETE FROM customer");
    }
    sqlite3_close(database);
    printf("SQLite %s checksum %016llx\n", sqlite3_libversion(), (unsigned long long)checksum);
    return 0;
}
