"""From a raw record of anybody's file to the messages of a row: columns, message forms, tool calls, dialogue texts."""
