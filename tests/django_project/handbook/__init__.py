"""An app without receivers; what is called receivers here is about Django signals."""
