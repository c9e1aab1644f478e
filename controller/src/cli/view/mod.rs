//! What commands show: computed by the reader from what etcd holds. Pure.

pub mod clusters;
pub mod instances;
pub mod plain;
pub mod tree;

pub use clusters::ClusterRow;
pub use instances::InstanceRow;

#[cfg(test)]
mod tests;
