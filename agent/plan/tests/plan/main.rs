//! The plans as tables, as properties of single instances, and as a small world of three.

mod change;
mod fixture;
mod goldens;
mod properties;
mod rules;
mod world;
