"""`domain-events`: the operator's command. Each noun is a module here; `command` lists them."""
