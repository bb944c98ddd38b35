"""From records to what people read: records, boards, comparisons, the report."""
