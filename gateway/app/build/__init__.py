"""From the configuration to the values and objects that everything below the app takes."""
