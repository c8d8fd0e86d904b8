//! Drains flamewalk's rings and turns samples into a profile
