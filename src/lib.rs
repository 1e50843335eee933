pub mod config;
pub mod money;
