pub mod dialect;
pub mod failure;
pub mod money;
