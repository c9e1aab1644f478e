//! The world, simulated: what stands behind the seams when a run must be fast, seeded and breakable.
//!
//! | module | holds |
//! |---|---|
//! | [`store`] | etcd |
//! | [`disk`], [`containers`], [`mysqld`] | what a host has: its disk, Docker, the servers |
//! | [`life`] | one life of an agent: all it asks of the world goes through here, and it can end at every such moment |
//! | [`world`] | the state of everything, and time |
//! | [`judge`] | what must hold after every change |
//! | [`fleet`] | real agents on this world, their documents, and clients that write |
//! | [`faults`], [`trouble`] | what happens to them, and to the machines they run on |
//! | [`wishes`] | what people ask of whole clusters |
//!
//! The store and the disk are held against the real ones by suites that run on both (`store_seam`, `disk_seam`); at the
//! top of the others stands which facts of the real parts they keep to.

pub mod containers;
pub mod disk;
pub mod faults;
pub mod fleet;
pub mod judge;
pub mod life;
pub mod mysqld;
pub mod store;
pub mod trouble;
pub mod wishes;
pub mod world;
