//! cdk's own conformance suites for wallet and mint stores, run over our connector.
//!
//! The PostgreSQL half runs when `TEST_POSTGRES_URL` is set to a role that may create schemas, for
//! example `postgres://postgres@127.0.0.1:5544/postgres`; else each of its tests says `SKIPPED`
//! (visible with `--nocapture`) and returns.
//!
//! cdk's macros with one argument expand to the macro of the same name with the whole list of
//! tests. The macros of that name here take the list over, so that it is always cdk's complete one.

mod sqlite {
    use coinslot::wallet::cdk_db::SqliteWalletDb;

    use crate::support::store::{SqliteMintDb, TempStore};

    macro_rules! wallet_db_test {
        ($open:ident, $($name:ident),+ $(,)?) => { mod wallet { $(
            #[tokio::test]
            async fn $name() {
                let store = super::TempStore::new();
                let db = super::$open::new(store.config()).await.expect("wallet store");
                cdk_common::database::wallet::test::$name(db).await;
            }
        )+ } };
    }

    macro_rules! mint_db_test {
        ($open:ident, $($name:ident),+ $(,)?) => { mod mint { $(
            #[tokio::test]
            async fn $name() {
                let store = super::TempStore::new();
                let db = super::$open::new(store.config()).await.expect("mint store");
                cdk_common::database::mint::test::$name(db).await;
            }
        )+ } };
    }

    cdk_common::wallet_db_test!(SqliteWalletDb);
    cdk_common::mint_db_test!(SqliteMintDb);
}

mod postgres {
    use coinslot::wallet::cdk_db::PostgresWalletDb;

    use crate::support::store::{PostgresMintDb, TempSchema};

    macro_rules! wallet_db_test {
        ($open:ident, $($name:ident),+ $(,)?) => { mod wallet { $(
            #[tokio::test]
            async fn $name() {
                let Some(schema) = super::TempSchema::create().await else { return };
                // As the product opens it: with the widened columns.
                drop(coinslot::wallet::cdk_db::open_postgres(schema.config()).await.expect("migrations"));
                let db = super::$open::new(schema.config()).await.expect("wallet store");
                cdk_common::database::wallet::test::$name(db).await;
                schema.remove().await;
            }
        )+ } };
    }

    macro_rules! mint_db_test {
        ($open:ident, $($name:ident),+ $(,)?) => { mod mint { $(
            #[tokio::test]
            async fn $name() {
                let Some(schema) = super::TempSchema::create().await else { return };
                let db = super::$open::new(schema.config()).await.expect("mint store");
                cdk_common::database::mint::test::$name(db).await;
                schema.remove().await;
            }
        )+ } };
    }

    cdk_common::wallet_db_test!(PostgresWalletDb);
    cdk_common::mint_db_test!(PostgresMintDb);
}
