"""What people see: pictures, tables and text, on a terminal or in a pipe."""
