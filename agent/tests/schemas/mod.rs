//! READ ONLY schemas, on real servers.

use std::time::Instant;

use mysql_async::prelude::Queryable as _;

use super::servers::Server;
use super::{Boxed, SECOND, executed, refused};

/// One that needs quoting.
const NAME: &str = "od`d 'one";

pub(crate) async fn a_schema_is_frozen_on_one_server(a: &Server, at_a: &mut Boxed) {
    let mut sql =
        a.sql(&["CREATE DATABASE `od``d 'one`", "CREATE TABLE `od``d 'one`.t (id INT PRIMARY KEY)"]).await;
    assert_eq!(at_a.schemas().await.unwrap().get(NAME), Some(&false));
    let mut reader = a.application().await.unwrap();
    let number = reader.id();
    reader.query_drop("BEGIN").await.unwrap();
    reader.query_drop("SELECT * FROM `od``d 'one`.t").await.unwrap();

    // An idle reader is in the way: it is named, and nobody waits for long.
    let begun = Instant::now();
    let error = at_a.set_schema_read_only(NAME, true).await.unwrap_err();
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    assert!(error.to_string().contains(&format!("connection {number} of app_")), "{error}");
    refused::<()>(Err(error), 1205);
    sql.query_drop("INSERT INTO `od``d 'one`.t VALUES (1)").await.unwrap();
    reader.query_drop("COMMIT").await.unwrap();

    let before = executed(at_a).await;
    at_a.set_schema_read_only(NAME, true).await.unwrap();
    assert_eq!(at_a.schemas().await.unwrap().get(NAME), Some(&true));
    assert_eq!(executed(at_a).await, before, "it is logged");
    let Err(mysql_async::Error::Server(error)) =
        sql.query_drop("INSERT INTO `od``d 'one`.t VALUES (2)").await
    else {
        panic!("it takes writes")
    };
    assert_eq!(error.code, 3989);
    refused(at_a.set_schema_read_only("none", true).await, 3503);

    at_a.set_super_read_only(true, SECOND).await.unwrap();
    refused(at_a.set_schema_read_only(NAME, false).await, 1290);
    at_a.set_super_read_only(false, SECOND).await.unwrap();
    at_a.set_read_only(false).await.unwrap();

    at_a.set_schema_read_only(NAME, false).await.unwrap();
    sql.query_drop("INSERT INTO `od``d 'one`.t VALUES (2)").await.unwrap();
    sql.query_drop("DROP DATABASE `od``d 'one`").await.unwrap();
}
