"""Everything that is SparkPost's own: names are normalised here, and nowhere else."""
