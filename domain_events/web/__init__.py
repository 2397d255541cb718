"""HTTP beside a supervisor: health, metrics and the page, in a child of its own. Needs the extra `http`."""
