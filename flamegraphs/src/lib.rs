//! Flame graphs and tables of flamewalk profiles
