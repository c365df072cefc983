/*
 * The machine's DSDT (ACPI 5.0). Everything that depends on the configuration is
 * External here and comes from the SSDT that aml.c makes: the 64-bit window, the
 * slot of the ISA bridge, the interrupt routing.
 */
DefinitionBlock ("", "DSDT", 2, "BHYVE ", "BVDSDT  ", 0x00000001)
{
	External (\LPCP, IntObj)	/* whether there is an ISA bridge */
	External (\LPCA, IntObj)	/* its _ADR */
	External (\M64B, IntObj)	/* 64-bit window: first byte, */
	External (\M64L, IntObj)	/* last byte, */
	External (\M64S, IntObj)	/* size */
	External (\PRTP, PkgObj)	/* routing with the 8259 pair */
	External (\PRTA, PkgObj)	/* and with the IOAPIC */

	Name (_S5, Package () { 0x05, Zero })

	Name (PICM, Zero)
	Method (_PIC, 1, NotSerialized)
	{
		PICM = Arg0
	}

	Scope (\_SB)
	{
		Device (PC00)
		{
			Name (_HID, EisaId ("PNP0A03"))
			Name (_UID, Zero)

			Name (RES, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed,
				    PosDecode, 0x0000, 0x0000, 0x00FF, 0x0000, 0x0100)
				IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode,
				    EntireRange, 0x0000, 0x0000, 0x0CF7, 0x0000, 0x0CF8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode,
				    EntireRange, 0x0000, 0x0D00, 0xFFFF, 0x0000, 0xF300)
				DWordMemory (ResourceProducer, PosDecode, MinFixed,
				    MaxFixed, NonCacheable, ReadWrite, 0x00000000,
				    0xC0000000, 0xDFFFFFFF, 0x00000000, 0x20000000)
				QWordMemory (ResourceProducer, PosDecode, MinFixed,
				    MaxFixed, NonCacheable, ReadWrite, 0x0000000000000000,
				    0x0000000800000000, 0x0000000FFFFFFFFF,
				    0x0000000000000000, 0x0000000800000000, , , W64)
			})
			Method (_CRS, 0, Serialized)
			{
				CreateQWordField (RES, ^W64._MIN, WMIN)
				CreateQWordField (RES, ^W64._MAX, WMAX)
				CreateQWordField (RES, ^W64._LEN, WLEN)
				WMIN = \M64B
				WMAX = \M64L
				WLEN = \M64S
				Return (RES)
			}

			Method (_PRT, 0, NotSerialized)
			{
				If (PICM)
				{
					Return (\PRTA)
				}
				Return (\PRTP)
			}

			Device (HPET)
			{
				Name (_HID, EisaId ("PNP0103"))
				Name (_UID, Zero)
				Name (_CRS, ResourceTemplate ()
				{
					Memory32Fixed (ReadWrite, 0xFED00000, 0x00000400)
				})
			}

			/* Motherboard resources; ECAM must be among them. */
			Device (MBRD)
			{
				Name (_HID, EisaId ("PNP0C02"))
				Name (_UID, Zero)
				Name (_CRS, ResourceTemplate ()
				{
					Memory32Fixed (ReadWrite, 0xE0000000, 0x10000000)
					Memory32Fixed (ReadOnly, 0xFEC00000, 0x00001000)
					Memory32Fixed (ReadOnly, 0xFEE00000, 0x00001000)
					IO (Decode16, 0x0061, 0x0061, 0x01, 0x01)
					IO (Decode16, 0x0092, 0x0092, 0x01, 0x01)
					IO (Decode16, 0x00B2, 0x00B2, 0x01, 0x01)
					IO (Decode16, 0x0400, 0x0400, 0x01, 0x10)
					IO (Decode16, 0x04D0, 0x04D0, 0x01, 0x02)
				})
			}

			Device (PIC)
			{
				Name (_HID, EisaId ("PNP0000"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0020, 0x0020, 0x01, 0x02)
					IO (Decode16, 0x00A0, 0x00A0, 0x01, 0x02)
					IRQNoFlags () {2}
				})
			}

			Device (TIMR)
			{
				Name (_HID, EisaId ("PNP0100"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0040, 0x0040, 0x01, 0x04)
					IRQNoFlags () {0}
				})
			}

			Device (RTC)
			{
				Name (_HID, EisaId ("PNP0B00"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
					IRQNoFlags () {8}
				})
			}

			Device (ISA)
			{
				Method (_ADR, 0, NotSerialized)
				{
					Return (\LPCA)
				}

				OperationRegion (ROUT, PCI_Config, 0x60, 0x0C)
				Field (ROUT, ByteAcc, NoLock, Preserve)
				{
					PIRA, 8, PIRB, 8, PIRC, 8, PIRD, 8,
					Offset (0x08),
					PIRE, 8, PIRF, 8, PIRG, 8, PIRH, 8
				}
			}

			/* Bit 7 of a routing register switches the link off. */
			Method (PSTA, 1, NotSerialized)
			{
				If (Arg0 & 0x80)
				{
					Return (0x09)
				}
				Return (0x0B)
			}

			Name (LBUF, ResourceTemplate ()
			{
				IRQ (Level, ActiveLow, Shared, LNK) {15}
			})
			Method (PCRS, 1, Serialized)
			{
				CreateWordField (LBUF, ^LNK._INT, MASK)
				If (Arg0 & 0x80)
				{
					MASK = Zero
				}
				Else
				{
					MASK = (One << (Arg0 & 0x0F))
				}
				Return (LBUF)
			}

			/* The interrupt that _SRS wants. */
			Method (PSRS, 1, NotSerialized)
			{
				CreateWordField (Arg0, One, MASK)
				FindSetRightBit (MASK, Local0)
				Local0--
				Return (Local0)
			}

			Name (PPRS, ResourceTemplate ()
			{
				IRQ (Level, ActiveLow, Shared) {3,4,5,6,7,9,10,11,12,14,15}
			})

			Device (LNKA)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 1)
				Method (_STA) { Return (PSTA (^^ISA.PIRA)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRA)) }
				Method (_SRS, 1) { ^^ISA.PIRA = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRA = 0x80 }
			}

			Device (LNKB)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 2)
				Method (_STA) { Return (PSTA (^^ISA.PIRB)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRB)) }
				Method (_SRS, 1) { ^^ISA.PIRB = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRB = 0x80 }
			}

			Device (LNKC)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 3)
				Method (_STA) { Return (PSTA (^^ISA.PIRC)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRC)) }
				Method (_SRS, 1) { ^^ISA.PIRC = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRC = 0x80 }
			}

			Device (LNKD)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 4)
				Method (_STA) { Return (PSTA (^^ISA.PIRD)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRD)) }
				Method (_SRS, 1) { ^^ISA.PIRD = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRD = 0x80 }
			}

			Device (LNKE)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 5)
				Method (_STA) { Return (PSTA (^^ISA.PIRE)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRE)) }
				Method (_SRS, 1) { ^^ISA.PIRE = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRE = 0x80 }
			}

			Device (LNKF)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 6)
				Method (_STA) { Return (PSTA (^^ISA.PIRF)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRF)) }
				Method (_SRS, 1) { ^^ISA.PIRF = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRF = 0x80 }
			}

			Device (LNKG)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 7)
				Method (_STA) { Return (PSTA (^^ISA.PIRG)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRG)) }
				Method (_SRS, 1) { ^^ISA.PIRG = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRG = 0x80 }
			}

			Device (LNKH)
			{
				Name (_HID, EisaId ("PNP0C0F"))
				Name (_UID, 8)
				Method (_STA) { Return (PSTA (^^ISA.PIRH)) }
				Method (_PRS) { Return (PPRS) }
				Method (_CRS) { Return (PCRS (^^ISA.PIRH)) }
				Method (_SRS, 1) { ^^ISA.PIRH = PSRS (Arg0) }
				Method (_DIS) { ^^ISA.PIRH = 0x80 }
			}

			/* The serial ports of the ISA bridge. */
			Method (CSTA, 0, NotSerialized)
			{
				If (\LPCP)
				{
					Return (0x0F)
				}
				Return (Zero)
			}

			Device (COM1)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 1)
				Method (_STA) { Return (CSTA ()) }
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
					IRQNoFlags () {4}
				})
			}

			Device (COM2)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 2)
				Method (_STA) { Return (CSTA ()) }
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x02F8, 0x02F8, 0x01, 0x08)
					IRQNoFlags () {3}
				})
			}

			Device (COM3)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 3)
				Method (_STA) { Return (CSTA ()) }
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x03E8, 0x03E8, 0x01, 0x08)
					IRQNoFlags () {4}
				})
			}

			Device (COM4)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 4)
				Method (_STA) { Return (CSTA ()) }
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x02E8, 0x02E8, 0x01, 0x08)
					IRQNoFlags () {3}
				})
			}
		}
	}
}
